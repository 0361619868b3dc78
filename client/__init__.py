"""An institution's end: what it does with a request of the server.

The audited part, in reading order (each file stays under 150 lines):

    policy        what the institution allows                    account    what a ledger's rows amount to
    rows          what each kind of row does                     rules      when something may be opened or charged
    chain         rows on disk, hash-chained                     ledger     the only way to add one
    outbox        answers on disk                                release    RESERVE -> make -> SEAL -> send -> ACK
    witnesses     who notices an old copy

The rest:

    app           messages in, messages out                      answers    what is done with an ask
    site_config   site.toml                                      site       an installation, opened
    agreement     is this the agreed run; is it allowed          preparation records -> shares of a run
    prefixes      what frozen layers make of the texts           units      records -> units, train and validation
    batches       units -> micro-batches                         training   the local steps of one round
    validation    noised counts on the held-out share            people     whose people are whose
    identity      the institution's own key                      offers     runs that wait for a person
    cli           `confide client ...`                           review     what a person is told about a run
    accounts      the ledger as a person reads it                link       the way to the server
    service       `confide client start`                         enrolment  keys, a request, a kit
    status        what it tells of itself; its lock              adapters   finished ones, checked
    doctor        what would keep it from taking part            probe      one look at the server
    lines         of the data that no round would use            operations_cli  doctor, status, models list
    ticks         when an answer leaves                          rehearsal  a round without data
    arrival       a finished adapter, before it is kept          journal    what went wrong, in files that rotate
    intake        how much comes in                              heartbeat  what keeps the connection
    enrolment_cli `confide client join`                          studies    what was offered, approved, opened, closed
    trial         every shape of a micro-batch, tried            operations whether they follow from a batch's shape
    commitments    what ledgers know of keys and people
"""
