"""What the books must come out at, known without reading a single log: expected figures for tests and for the sceptical.

`truth.json` holds money as decimal strings. `initiators` and `executors` price every billed, logged call at the true rate;
`uncaptured` lists what nobody logged; `unbilled` what no bill covers yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import polars as pl

from ledger.money import text
from rootcost.demo import company as co
from rootcost.demo.bill import AwsLine, OpenAiLine
from rootcost.demo.company import METERS, MODELS, PRIVATE_RATE
from rootcost.demo.pricebook import list_rates

_MODEL = {m.name: m for m in MODELS}


def priced(usage: pl.DataFrame, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Tokens by `keys`, model and meter, with what they truly cost: list price, and less the private rate on AWS."""
    usage_sums = usage.group_by([*keys, "model"]).agg(pl.col(m).sum() for m in METERS).sort([*keys, "model"])
    out: list[dict[str, Any]] = []
    for row in usage_sums.iter_rows(named=True):
        model = _MODEL[row["model"]]
        rates = list_rates(model)
        for meter in METERS:
            if row[meter] and meter in rates:
                list_cost = row[meter] * rates[meter]
                net = list_cost * (1 - PRIVATE_RATE) if model.on_aws else list_cost
                provider = "AWS" if model.on_aws else "OpenAI"
                out.append(
                    {
                        **{k: row[k] or None for k in keys},
                        "provider": provider,
                        "region": model.region or None,
                        "model": model.name,
                        "meter": meter,
                        "tokens": row[meter],
                        "list_cost": text(list_cost),
                        "effective_cost": text(net),
                    }
                )
    return out


def aws_totals(lines: Iterable[AwsLine]) -> dict[str, Any]:
    """What the AWS bill adds up to, and by kind of row."""
    aws_lines = list(lines)
    kinds: dict[str, Decimal] = {}
    for line in aws_lines:
        kinds[line.truth] = kinds.get(line.truth, Decimal(0)) + line.net
    return {
        "rows": len(aws_lines),
        "billed_cost": text(sum((line.net for line in aws_lines), Decimal(0))),
        "effective_cost": text(sum((line.net for line in aws_lines), Decimal(0))),
        "unblended_cost": text(sum((line.listed for line in aws_lines), Decimal(0))),
        "by_kind": {kind: text(total) for kind, total in sorted(kinds.items())},
    }


def openai_totals(lines: Iterable[OpenAiLine]) -> dict[str, Any]:
    """What the OpenAI bill adds up to."""
    openai_lines = list(lines)
    total = text(sum((line.cost for line in openai_lines), Decimal(0)))
    return {
        "rows": len(openai_lines),
        "billed_cost": total,
        "effective_cost": total,
        "list_cost": total,
        "contracted_cost": total,
    }


def uncaptured(lines: Iterable[AwsLine]) -> list[dict[str, Any]]:
    """Money for usage that nobody logged, by who is behind it."""
    owners: dict[str, dict[str, str | None]] = {
        co.SHADOW_TAGGED: {"owner_team": "Growth", "owner_agent": None, "found_by": "tag iamPrincipal/team"},
        co.SHADOW_REGISTERED: {
            "owner_team": co.BI_REPORT.team,
            "owner_agent": co.BI_REPORT.name,
            "found_by": "registered principal",
        },
        co.SHADOW_PLAIN: {"owner_team": None, "owner_agent": None, "found_by": None},
    }
    sums: dict[tuple[str, str], list[Decimal]] = {}
    for line in lines:
        if line.principal in owners:
            net_and_list = sums.setdefault((line.principal, line.account), [Decimal(0), Decimal(0)])
            net_and_list[0] += line.net
            net_and_list[1] += line.listed
    return [
        {
            "principal": principal,
            "account": account,
            **owners[principal],
            "effective_cost": text(net),
            "list_cost": text(list_cost),
        }
        for (principal, account), (net, list_cost) in sorted(sums.items())
    ]
