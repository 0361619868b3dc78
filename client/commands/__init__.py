"""`confide client ...`.

cli                most commands, as typer declares them
enrolment_cli      `join`
looking_after_cli  `doctor`, `status`, `models list`
page_cli           `page`
data_cli           `confide data ...`
at_home_cli        `evaluate`, `personalise`
at_home            their work, on an institution's own records
doctor             obstacles to taking part
models             finished adapters, whole or not
"""
