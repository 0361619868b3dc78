"""What both ends share: the privacy core, records, models, adapters, messages, and the `confide` command.

privacy/       the audited core (start at privacy/__init__.py)
tasks/         one file a kind of task
run_config     run.toml, checked                configuration  TOML -> checked settings
simulation_config  its part that stays at home
records        a file of texts, checked         batches        examples as tensors
tables         Parquet, saved datasets         labels         however a file writes them
models         find, fetch, hash a base         devices        where, and in what precision
adapter        LoRA on it, its state            warm_model     one loaded model for all
lower_layers   what is frozen below it
gate           a state against its schema       messages       ask and answer on the wire
transfer       a state as it travels            evaluation     accuracy of an adapter
export         the finished adapter as a folder
flower         Flower's environment             errors         our errors and exit codes
durable        files that are on the disk       failpoints     where a crash test may kill
verify         `confide verify`, none of ours   wire           the form of what travels
verify_epsilon its accountant                   verify_ledger  its laws of a ledger's rows
join           requests and kits                versions       who may talk to whom
rehearsal      the answer to one                main, cli      the command line
shown          others' words on one line         pipes          readers that go
shapes         of micro-batches: few and public  run_sections   the sections of run.toml
"""
