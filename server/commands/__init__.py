"""`confide server ...`.

cli           the commands, as typer declares them
admin_client  what they ask the admin port
"""
