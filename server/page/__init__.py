"""The server in a browser, on the admin port: the operator's view, and the operator's orders.

It shows nothing that an institution did not send already, and nothing to anyone without a one-time link.

pages      the pages, and the forms that change something
once       one order for each form that was shown
facts      institutions and runs as the pages show them
following  the files of a run, read as they grow
spending   both epsilons of a run over its rounds
"""
