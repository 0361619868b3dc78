"""The `confide` command. `main` names the commands of all folders as text, and imports a command when it is used.

main         the table of commands
completion   `completion`
adapters     `init`, `evaluate`, `predict`, `export`
streams      lines as they arrive, and the records in them
predictions  predictions for such lines
explained    explanations beside them
machine      checks of a machine
pipes        output to readers that leave early
"""
