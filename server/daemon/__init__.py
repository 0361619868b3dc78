"""The server as a process that lives for months.

process       the public port, the admin port, the worker
server_state  the state that worker and admin port share
worker        the thread that carries out runs
run           one run, from queue to results
audited       the attack on a run before it is offered
rehearsal     one round without data
torch_child   the child process that has torch
delivery      sends out the finished adapter
admin         the admin port
orders        the operator's orders about runs
status        facts for the operator
logs          JSON lines
"""
