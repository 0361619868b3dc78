"""Messages between server and client, and the checks of received messages.

wire        fields of a message, checked
versions    the check that both ends run the same
asks        from server to client
answers     from client to server
signed      a signed answer with a payload
secure_sum  envelopes, statement and masks of a sum that shows no single share
sum_messages  the messages of such a sum
gate        an untrusted state against its schema
transfer    a state as bytes, with fewer bits or all
signatures  an institution's own key
enrolment   requests to join, and kits
"""
