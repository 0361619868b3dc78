"""The `confide` command. `main` names the commands of all folders as text and imports one when it is used.

main      the table of commands
adapters  `init`, `evaluate`, `predict`
pipes     readers that go before the end
"""
