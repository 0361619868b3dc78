"""Both ends share this.

privacy/      the audited core: one private step and its accounting
generation/   texts that a model writes
forms/        the forms in which files hold texts and answers
tasks/        the kinds of task
methods/      the parameter-efficient methods
config/       run.toml and what every settings file has in common
training/     the step that follows a round
data/         texts: from files to tensors
protocol/     messages between server and client
model/        base models with an adapter
export/       finished adapters in PEFT's format
curation/     a file of records as its owner should know it
explanation/  the words to which a prediction owes itself
scoring/      the answer of a test, and how far it can be trusted
pages/        pages that a browser on this machine shows
verify/       `confide verify`
cli/          the `confide` command

errors        our errors and their exit codes
failpoints    places where a crash test may kill
durable       files that are on the disk
tensors       the state of an adapter, its names and shapes
settings      the base of every section of a settings file
flower        Flower's environment and version
findings      the finding of a check
folders       folders that a command makes, or a process holds alone
private_file  files that a command writes for its user alone
aloud         hashes that people read to each other
shown         words of others on one line
"""
