"""What both ends share: the privacy core, records, models, adapters, messages, and the `confide` command.

privacy/       the audited core (start at privacy/__init__.py)
tasks/         one file a kind of task
run_config     run.toml, checked            records       a file of texts, checked
models         find, hash, load a base      adapter       LoRA on it, its state, its schema
gate           a state against its schema   messages      ask and answer on the wire
evaluation     accuracy of an adapter       export        the finished adapter as a folder
flower         Flower's environment         errors        our four errors
main, cli      the command line
"""
