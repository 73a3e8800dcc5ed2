"""Owners of cloud identities: by the identity's own name, by its session, by its role. (RA-4, ID-1)

A bill names a caller by ARN. Of an assumed role that is role and session, ``…:assumed-role/Role/session``: teams register the role, and
name sessions after agents. The more specific match wins; a session is an agent only where an agent of that name is registered, since
many session names are random.
"""

from __future__ import annotations

import polars as pl

from attribution import as_of
from ledger.names import RegisteredNames

_SESSION = r"^arn:[^:]*:sts::\d*:assumed-role/[^/]+/(.+)$"
_ROLE = r"^arn:([^:]*):sts::(\d*):assumed-role/([^/]+)/.+$"


def principal_owners(
    frame: pl.DataFrame, timeline: pl.DataFrame, *, name: str = "principal", at: str = "period_start"
) -> pl.DataFrame:
    """`agent` and `team` of each principal at that time, parallel to `frame`; null where none is registered.

    Looked up in this order: the principal as written; its session as an agent's name or alias; the role it assumed, as
    ``arn:aws:iam::account:role/Role``, as ``…:assumed-role/Role`` or by its bare name.

    >>> from datetime import UTC, datetime
    >>> since = datetime(2026, 1, 1, tzinfo=UTC)
    >>> timeline = pl.DataFrame([("principal", "arn:aws:iam::1111:role/Bots", None, "Care"), ("agent", "coder", "coder", "Dev")],
    ...     schema=["kind", "name", "agent", "team"], orient="row").with_columns(valid_from=since,
    ...     valid_to=pl.lit(None, dtype=pl.Datetime("us", "UTC")), account=pl.lit(None, pl.String), region=pl.lit(None, pl.String))
    >>> sessions = [f"arn:aws:sts::1111:assumed-role/Bots/{s}" for s in ("i-0abc", "coder")]
    >>> principal_owners(pl.DataFrame({"principal": sessions, "period_start": [since, since]}), timeline).rows()
    [(None, 'Care'), ('coder', 'Dev')]
    """
    distinct = frame.select(name, at).unique()
    if distinct[name].null_count() == distinct.height:
        return frame.select(agent=pl.lit(None, dtype=pl.String), team=pl.lit(None, dtype=pl.String))
    arn = pl.col(name)
    role = arn.str.extract(_ROLE, 3)
    account = arn.str.extract(_ROLE, 2)
    aws = arn.str.extract(_ROLE, 1)
    lookups = distinct.with_columns(
        __session=arn.str.extract(_SESSION),
        __role=pl.concat_str(pl.lit("arn:"), aws, pl.lit(":iam::"), account, pl.lit(":role/"), role),
        __assumed=pl.concat_str(pl.lit("arn:"), aws, pl.lit(":sts::"), account, pl.lit(":assumed-role/"), role),
        __bare=role,
    )
    # A session that is an agent's name but for its case is that agent. (ID-3)
    lookups = lookups.with_columns(RegisteredNames.agents(timeline).find_all(lookups["__session"]))
    owners = [
        as_of.owner_at(lookups, timeline, name=column, at=at, kinds=kinds)
        for column, kinds in (
            (name, ("principal",)),
            ("__session", ("agent", "alias")),
            ("__role", ("principal",)),
            ("__assumed", ("principal",)),
            ("__bare", ("principal",)),
        )
    ]
    # Agent and team of one registration belong together: the first lookup that finds either decides both.
    agent: pl.Expr = pl.lit(None, dtype=pl.String)
    team: pl.Expr = pl.lit(None, dtype=pl.String)
    owner_columns = pl.DataFrame(
        {f"{column_name}{n}": owner[column_name] for n, owner in enumerate(owners) for column_name in ("agent", "team")}
    )
    for n in reversed(range(len(owners))):
        is_registered = pl.col(f"agent{n}").is_not_null() | pl.col(f"team{n}").is_not_null()
        agent = pl.when(is_registered).then(pl.col(f"agent{n}")).otherwise(agent)
        team = pl.when(is_registered).then(pl.col(f"team{n}")).otherwise(team)
    lookup = lookups.select(name, at).with_columns(owner_columns.select(agent=agent, team=team))
    return (
        frame.select(name, at)
        .join(lookup, on=[name, at], how="left", nulls_equal=True, maintain_order="left")
        .select("agent", "team")
    )
