"""Ids of a call that cross sources: the provider's request id, in the body or in headers a gateway passes on, message and response ids. (CA-1a)"""

from __future__ import annotations

import polars as pl

from attribution.chains.attempts import PROOFS, model_signatures, prompt_readings
from attribution.chains.shared_ids import call_ids, with_callers


def request_proofs(signals: pl.DataFrame, shared_ids: pl.DataFrame) -> pl.DataFrame:
    """Proofs (row, proof) of signals that share an id and do not contradict each other on model and prompt; `signals` has `row`.

    Output proves nothing: of a stream that was cut, or of a placeholder, it is smaller than the truth. An id of several gateway calls was
    repeated from a cache or chosen by a client, and proves nothing. A signal without model or prompt belongs to the only call that has
    its id, and never joins two. `shared_ids` names the ids that are another caller's.
    """
    own_ids = signals.select("row", id="provider_request_id", is_own=pl.lit(value=True)).drop_nulls("id")
    ids = with_callers(call_ids(signals).join(own_ids, on=["row", "id"], how="left"), shared_ids)
    ids = ids.filter(pl.col("id").is_duplicated())
    if not ids.height:
        return pl.DataFrame(schema=PROOFS)
    answers = signals.join(ids.select("row").unique(), on="row", how="semi")
    answers = answers.select(
        "row",
        "start_time",
        "gateway_call_id",
        "output_tokens",
        hit=pl.col("cache_hit").fill_null(value=False),
        model=model_signatures(answers),
        prompt=prompt_readings(answers),
    )
    signal_ids = ids.join(answers, on="row").explode("prompt")
    single_gateway = pl.col("gateway_call_id").drop_nulls().n_unique().over("id", "hit", "prompt", "model") < 2
    complete = signal_ids.drop_nulls(["prompt", "model"]).filter(single_gateway)
    proofs = complete.select("row", proof=_proof("prompt", "model")).unique()
    return pl.concat([proofs, _partial_proofs(signal_ids, complete)]).unique().filter(pl.col("proof").is_duplicated())


def _proof(prompt: str, model: str) -> pl.Expr:
    return pl.concat_str(pl.lit("request|"), "hit", prompt, model, "id", separator="|")


def _partial_proofs(signal_ids: pl.DataFrame, complete: pl.DataFrame) -> pl.DataFrame:
    """Proofs of the signals that lack model or prompt, by the first of their ids that belongs to one call only."""
    partial = signal_ids.filter(pl.col("prompt").is_null() | pl.col("model").is_null())
    if not partial.height:
        return pl.DataFrame(schema=PROOFS)
    readings = complete.select("row", "id", "hit", "start_time", whole_prompt="prompt", whole_model="model")
    # Two readings of one signal are one call; readings of different signals that share none are two.
    calls_by_id = readings.group_by("id", "hit", "whole_prompt", "whole_model").agg(whole_start=pl.col("start_time").min())
    sole = readings.group_by("id", "hit").agg(
        pl.col("whole_prompt").n_unique().alias("prompts"), pl.col("whole_model").n_unique().alias("models")
    )
    sole = sole.filter((pl.col("prompts") == 1) & (pl.col("models") == 1)).select("id", "hit")
    candidates = partial.join(calls_by_id.join(sole, on=["id", "hit"], how="semi"), on=["id", "hit"])
    agrees = (pl.col("prompt").is_null() | (pl.col("prompt") == pl.col("whole_prompt"))) & (
        pl.col("model").is_null() | (pl.col("model") == pl.col("whole_model"))
    )
    # Its own id says more than those it passes on, and of these the one of the call that started nearest to it.
    distance = (pl.col("start_time") - pl.col("whole_start")).abs()
    matches = candidates.filter(agrees).sort("row", pl.col("is_own").fill_null(value=False).not_(), distance, "id")
    sole_matches = matches.unique("row", keep="first", maintain_order=True)
    partial_proofs = sole_matches.select("row", proof=_proof("whole_prompt", "whole_model"))
    # Where no signal of an id is complete, those that agree in what they have are one call, as long as they report something.
    without_complete = partial.join(complete.select("id", "hit").unique(), on=["id", "hit"], how="anti")
    without_complete = without_complete.filter(pl.col("prompt").is_not_null() | pl.col("output_tokens").is_not_null())
    partial_only_proofs = without_complete.select(
        "row",
        proof=pl.concat_str(
            pl.lit("request|"), "hit", pl.col("prompt").fill_null(-1), pl.col("model").fill_null(""), "id", separator="|"
        ),
    )
    return pl.concat([partial_proofs, partial_only_proofs])
