"""Facts in: bills, token logs, prices. Fetch saves bytes, read is pure, `run` writes.

    source     the one contract; `sources/<name>.py` is one file a source
    fetch      the only door to the world: files, folders, S3
    run        the recipe: fetch, read, check, replace or merge, tell problems
    prices     the public price list, read as data and dated on import

A new source is one file and one folder of golden data; nothing else is edited.
"""
