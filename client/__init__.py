"""An institution's end: what it does with a request of the server.

site_config   who the institution is, its data, its machine     app        messages in, messages out
units         records -> units, train and validation            training   the local steps of one round
batches       units -> micro-batches
"""
