"""Flower's fleet API on the public port, and the limits in front of it.

flower_app         Flower's web application
self_test          one ask and its answer, before a server serves
public_port        the gate on the public port
connection_limits  limits on connections and on their time without a request
request_bodies     limits on the bodies of requests
client_limits      limits on the pulls and pushes of each client
superlink          Flower's state, and a Grid on it
leftovers          removal of objects that no open ask needs
"""
