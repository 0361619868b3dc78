"""Flower's fleet API on the public port, and everything that stands before it.

flower_app         Flower's web application
public_port        what the port serves
connection_limits  connections, and how long without a request
request_bodies     how much requests may bring
client_limits      what each client may pull and push
superlink          Flower's state, and a Grid on it
leftovers          objects that nobody waits for
"""
