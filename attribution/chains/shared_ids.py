"""Ids that records of several authenticated callers bear: an id names the calls of the caller that used it first. (CA-1a, CH-7a)

A client may send the id of another's call, under a key of its own. Retries, echoes and the channels of a gateway repeat an id under the same
key; under another key it is the id of another call.
"""

from __future__ import annotations

import polars as pl

from attribution.chains.attempts import GATEWAYS
from attribution.factorize import non_null_columns

SHARED_IDS = {"row": pl.Int64, "id": pl.String, "caller": pl.String}
"""Rows that bear an id of another caller, and the caller whose key they were sent with."""

_NONE = pl.DataFrame(schema=SHARED_IDS)
_GATEWAY = "^([a-z]+)"
"""The gateway of a channel: it logs on several."""

_BATCH_COST = "_batch_cost"
"""The end of the gateway call id of a row that bills a batch: whoever polls it, the batch is one piece of work."""


def ids_of_other_callers(signals: pl.DataFrame) -> pl.DataFrame:
    """The ids (row, id, caller) that signals bear and that a gateway logged before for the key of another caller.

    Only a gateway knows whose key it was, and keys of two gateways say nothing of each other: one may call the other. A signal of another
    channel is of the caller that it names, where a gateway has that one under the id, and else of the first. A key is told by its name;
    where no record of an id names one, by its team.
    """
    ids = _ids_of_several_signals(signals)
    if not ids.height:
        return _NONE
    is_log = pl.col("channel").is_in(GATEWAYS)
    columns = ("row", "start_time", "credential", "credential_team")
    rows = ids.join(
        signals.select(*columns, gateway=pl.when(is_log).then(pl.col("channel").str.extract(_GATEWAY))),
        on="row",
        maintain_order="left",
    )
    has_key = (pl.col("gateway").is_not_null() & pl.col("credential").is_not_null()).any().over("id")
    rows = rows.with_columns(caller=pl.when(has_key).then("credential").otherwise("credential_team")).drop_nulls("caller")
    log_rows = rows.drop_nulls("gateway").sort("start_time", "caller")
    callers = log_rows.group_by("id", "gateway", maintain_order=True).agg(
        owner=pl.col("caller").first(), callers=pl.col("caller").unique()
    )
    callers_of_shared = callers.filter(pl.col("callers").list.len() > 1)
    other = rows.filter(pl.col("gateway").is_null()).drop("gateway")
    members = [part.join(callers_of_shared, on=by) for part, by in ((rows, ["id", "gateway"]), (other, ["id"]))]
    is_other = (pl.col("caller") != pl.col("owner")) & pl.col("callers").list.contains(pl.col("caller"))
    return pl.concat(part.filter(is_other).select(list(SHARED_IDS)) for part in members).unique()


def call_ids(signals: pl.DataFrame) -> pl.DataFrame:
    """The ids of each signal by which another source may name the same call: row, id."""
    parts = [signals.select("row", id="provider_request_id").drop_nulls()]
    if signals["request_ids"].null_count() < signals.height:
        lists = signals.select("row", id="request_ids").drop_nulls()
        parts.append(lists.with_columns(pl.col("id").str.json_decode(pl.List(pl.String))).explode("id").drop_nulls().unique())
    return parts[0] if len(parts) == 1 else pl.concat(parts).unique()


def _ids_of_several_signals(signals: pl.DataFrame) -> pl.DataFrame:
    """The ids of calls and requests that more than one signal bears: row, id."""
    if not non_null_columns(signals, ("credential", "credential_team")):
        return _NONE.select("row", "id")
    ids = signals.select("row", id="gateway_call_id").drop_nulls()
    if non_null_columns(signals, ("provider_request_id", "request_ids")):
        ids = pl.concat([ids, call_ids(signals)]).unique()
    return ids.filter(pl.col("id").is_duplicated())


def with_callers(ids: pl.DataFrame, shared_ids: pl.DataFrame) -> pl.DataFrame:
    """The ids (row, id, …) with the caller added to those of another caller: the same text is another id.

    >>> ids = pl.DataFrame({"row": [0, 1], "id": ["g", "g"]}, schema_overrides={"row": pl.Int64})
    >>> shared_ids = pl.DataFrame({"row": [1], "id": ["g"], "caller": ["bob-key"]}, schema_overrides={"row": pl.Int64})
    >>> with_callers(ids, shared_ids)["id"].to_list()
    ['g', 'g|bob-key']
    """
    if not shared_ids.height:
        return ids
    callers = ids.join(shared_ids, on=["row", "id"], how="left", maintain_order="left")
    other_id = pl.concat_str("id", "caller", separator="|")
    return callers.with_columns(id=pl.coalesce(other_id, "id")).drop("caller")


def without_repeated_batches(signals: pl.DataFrame) -> pl.DataFrame:
    """The signals without the costs of a batch that others than its caller polled; adds `id_conflict` to those that remain.

    A batch is used once, whoever asks for it. It is its creator's, the first caller in the log that bears its id, and else that of the
    key which polled it first.
    """
    signals = signals.with_columns(id_conflict=pl.lit(value=False))
    is_cost = (
        pl.col("channel").is_in(GATEWAYS)
        & pl.col("gateway_call_id").str.ends_with(_BATCH_COST)
        & pl.col("provider_request_id").is_not_null()
    )
    # A client may choose a call id that looks like a batch's, but not the id that the provider gives the batch.
    is_cost &= pl.col("gateway_call_id") == pl.concat_str("provider_request_id", pl.lit(_BATCH_COST))
    batches = signals.filter(is_cost).select("provider_request_id").unique()
    if not batches.height:
        return signals
    caller = pl.coalesce("credential", "credential_team")
    records = signals.filter(pl.col("channel").is_in(GATEWAYS) & caller.is_not_null()).join(
        batches, on="provider_request_id", how="semi"
    )
    records = records.select("provider_request_id", "start_time", caller=caller, is_cost=is_cost).sort("start_time", "caller")
    # Of the callers that polled, the creator is the one who is in the log first.
    has_polled = pl.col("is_cost").any().over("provider_request_id", "caller")
    owners = (
        records.filter(has_polled)
        .group_by("provider_request_id", maintain_order=True)
        .agg(owner=pl.col("caller").first(), is_shared=pl.col("caller").filter("is_cost").n_unique() > 1)
    )
    owned_signals = signals.join(owners, on="provider_request_id", how="left", maintain_order="left")
    is_shared = is_cost & pl.col("is_shared").fill_null(value=False)
    is_repeat = is_shared & (caller != pl.col("owner")).fill_null(value=False)
    return owned_signals.filter(~is_repeat).with_columns(id_conflict=is_shared).drop("owner", "is_shared")
