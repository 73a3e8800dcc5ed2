"""Facts in: bills, token logs, prices. Fetching saves bytes, reading is pure, `run` writes. The steps, in order:

    sources.by_name(name) -> Source                                     what reads one kind of input
    source.plan(Fetcher, uri) -> Iterator[Batch | Problem]              what there is; its bytes are fetched
    fetch.WorldFetcher.get / request / store_bytes -> RawObject         bytes on this machine, named by their SHA-256
    source.read(RawObject, IngestSettings) -> Iterator[Reading]         rows in the ledger's terms, and problems; pure
    bills.handover.check_reading(Reading)                               a bill's reading has the form `ingest.source` describes
    bills.month.conform(BillBatch, month=…) -> BillBatch                the same rows with the types of the table `charges`
    bills.month.MonthBuffer.add(BillBatch)                              the rows of a month until all of its files are read; totals
    bills.month.replace_month(Store, scope, MonthBuffer)                the month of a dataset is replaced in one commit
    store.merge(SPANS, DataFrame)                                       rows of logs are merged: reading them again changes nothing
    checkpoints.save(Books, source, batches)                            how far a live source was read
    run.ingest(Books, source, uris) -> IngestReport                     all of the above
    probe.probe(Books, Source, uri) -> ProbeResult                      can an address be read? Nothing is written

    prices.books.read_prices(path) -> PriceList                         a price list in any of its forms
    prices.updates.compare(Books, PriceList) -> Update                  what it would change in the price book
    prices.updates.apply_update(Books, Update) -> ImportResult          plausible changes are added, implausible ones staged

A new source is one file (or folder) in `ingest.sources`, one folder of golden data, one test and one page: `make source NAME=x`
writes them. A plain table needs no code: see `ingest.plain_table`.
"""
