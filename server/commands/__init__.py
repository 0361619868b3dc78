"""The commands `confide server ...`.

cli           the commands, as typer declares them
admin_client  requests to the admin port, and their answers
"""
