"""Money: exact decimals with twelve places, and the only code that divides amounts.

Money is ``pl.Decimal(38, 12)`` in frames, `decimal.Decimal` in Python and a string in JSON. Floats never touch it.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import polars as pl

SCALE = 12
"""Decimal places of money. Only Azure sends more; its excess is accounted as `rounding`."""

MONEY = pl.Decimal(38, SCALE)
RATE_SCALE = 18
RATE = pl.Decimal(38, RATE_SCALE)
"""Unit prices: twelve places are too few for a price per token of 1.3888888888888889e-05."""

ZERO = Decimal(0)
_UNIT = Decimal(1).scaleb(-SCALE)
_MAX_AMOUNT = Decimal(10) ** 21
MAX_PLACES = 200
"""Decimal places of the longest number that is read as an amount."""
_FINE = pl.Decimal(38, 30)
_FINE_LIMIT = Decimal(10) ** 7
WEIGHT_LIMIT = 2**62
"""Total integer weight of one pool. Its square must fit 127 bits, which is what keeps `split` exact."""


def quantize(amount: Decimal) -> Decimal:
    """An amount at the ledger's twelve places, rounded half to even.

    >>> quantize(Decimal("0.1234567890125"))
    Decimal('0.123456789012')
    """
    with localcontext() as context:
        context.prec = 60
        return amount.quantize(_UNIT, rounding=ROUND_HALF_EVEN)


def text(amount: Decimal | None) -> str | None:
    """The amount as JSON carries it: plain digits, no exponent, no trailing zeros.

    >>> text(Decimal("20.520226728990")), text(Decimal("0E-12")), text(Decimal("100"))
    ('20.52022672899', '0', '100')
    """
    if amount is None:
        return None
    plain = format(amount, "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return "0" if plain in ("-0", "") else plain


def readable_amounts(*amounts: Decimal) -> list[str]:
    """Amounts of one sentence: two places from 1 upwards, four significant digits below, and more where two would look alike.

    >>> readable_amounts(Decimal("0.018"), Decimal("0.01"), Decimal("1234.567"), Decimal(0))
    ['0.018', '0.01', '1,234.57', '0.00']
    >>> readable_amounts(Decimal("1500.004"), Decimal(1500))
    ['1,500.004', '1,500.00']
    """
    candidates = ([_rounded_text(amount, extra_places) for amount in amounts] for extra_places in range(13))
    exact = [f"{amount:,f}" for amount in amounts]
    return next((texts for texts in candidates if len(set(texts)) == len(set(amounts))), exact)


def _rounded_text(amount: Decimal, extra_places: int) -> str:
    places = (2 if not amount or abs(amount) >= 1 else 3 - amount.adjusted()) + extra_places
    whole, _, decimals = f"{amount:,.{places}f}".partition(".")
    return f"{whole}.{decimals[:2]}{decimals[2:].rstrip('0')}"


def parse(column: pl.Expr) -> pl.Expr:
    """Text to money, rounded half to even at twelve places; null where the text is no decimal number.

    Scientific notation is accepted, as spreadsheets and floats write it.

    >>> pl.DataFrame({"cost": ["1.5", "-0.08", "1e-7", "12,5", None]}).select(parse(pl.col("cost")))["cost"].to_list()
    [Decimal('1.500000000000'), Decimal('-0.080000000000'), Decimal('1.00000E-7'), None, None]
    """
    # Polars reads the digits exactly and rounds half to even (checked against `decimal` in the tests), a million in 0.05 s.
    amount = column.cast(pl.String).str.strip_chars().cast(MONEY, strict=False)
    return pl.when(amount.is_between(-_MAX_AMOUNT, _MAX_AMOUNT, closed="none")).then(amount)


def beyond_twelve_places(column: pl.Expr) -> pl.Expr:
    """The text where it has more digits than `parse` keeps, else null: these rows are summed again at full precision. (MO-1a)

    >>> costs = pl.DataFrame({"cost": ["1.5", "0.123456789012345", "1.5e-13", None]})
    >>> costs.select(beyond_twelve_places(pl.col("cost")))["cost"].to_list()
    [None, '0.123456789012345', '1.5e-13', None]
    """
    return pl.when(column.str.contains(r"\.\d{13}|[eE]")).then(column)


def rounding_loss(literals: pl.Series, amounts: pl.Series) -> Decimal:
    """Total lost by rounding to twelve places: the sum as written minus the rounded sum, with all digits. (MO-1a)

    >>> texts = pl.Series(["0.123456789012345", "-1e-15"])
    >>> rounding_loss(texts, texts.to_frame("t").select(parse(pl.col("t")))["t"])
    Decimal('3.44E-13')
    """
    parts = pl.DataFrame({"written": literals.str.strip_chars(), "kept": amounts}).drop_nulls()
    digits = pl.col("written").str.extract(r"\.(\d+)").str.len_bytes().fill_null(0).cast(pl.Int64)
    exponent = pl.col("written").str.extract(r"[eE]([+-]?\d+)").str.strip_prefix("+").cast(pl.Int64, strict=False).fill_null(0)
    # 30 places hold what a double can say of an amount above 10^-13; the rare rest is summed one by one.
    plain = (digits - exponent <= 30) & pl.col("kept").is_between(-_FINE_LIMIT, _FINE_LIMIT)
    parts = parts.with_columns(plain=plain)
    fine = pl.when("plain").then("written").cast(_FINE) - pl.when("plain").then("kept").cast(_FINE)
    quick = parts.select(fine.sum()).item()
    with localcontext() as context:
        context.prec = 400
        difference = Decimal(quick or 0)
        for text_, amount in parts.filter(~pl.col("plain")).select("written", "kept").iter_rows():
            difference += (exact_decimal(text_) or ZERO) - amount
        return difference.normalize() if difference else ZERO


def exact_decimal(literal: str | None) -> Decimal | None:
    """The number exactly as written, or None if it is not one that money can be (NaN, infinity, beyond 10^20).

    >>> exact_decimal(" 1.50 "), exact_decimal("NaN"), exact_decimal("1 000")
    (Decimal('1.50'), None, None)
    """
    if literal is None or "_" in literal:
        return None
    try:
        amount = Decimal(literal.strip())
    except ArithmeticError:
        return None
    if not amount and amount.is_finite():
        return amount  # 0E-6176 is zero, however it is written
    return amount if is_amount(amount) else None


def is_amount(number: Decimal) -> bool:
    """Whether a number can be money: finite, below 10^21, and with at most `MAX_PLACES` places, since ``1E-999999999`` is a gigabyte of zeros.

    >>> [is_amount(Decimal(text)) for text in ("1.5", "NaN", "1E+400", "1E-999999999")]
    [True, False, False, False]
    """
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and number.adjusted() <= 20 and exponent >= -MAX_PLACES


def proportion(amount: Decimal, part: Decimal, whole: Decimal) -> Decimal:
    """Amount · part / whole at the ledger's twelve places, half to even; the share of one of many.

    3 000 of 10 000 tokens that cost $0.03, and what share of $0.03 unallocated $0.003 is, in percent:

    >>> proportion(Decimal("0.03"), Decimal(3000), Decimal(10000)), proportion(Decimal(100), Decimal("0.003"), Decimal("0.03"))
    (Decimal('0.009000000000'), Decimal('10.000000000000'))

    Raises `ZeroDivisionError` if `whole` is 0: what a share of nothing is, the caller must say.
    """
    if not whole:
        raise ZeroDivisionError("a share of 0 is undefined")
    with localcontext() as context:
        context.prec = 120
        return quantize(amount * part / whole)


def unit_rate(amount: Decimal, units: Decimal) -> Decimal:
    """Price of one unit where `units` of them cost `amount`, at the eighteen places of a rate, half to even.

    A million tokens for $3, and 9 000 tokens for $0.0125:

    >>> unit_rate(Decimal(3), Decimal(1000000)), unit_rate(Decimal("0.0125"), Decimal(9000))
    (Decimal('0.000003000000000000'), Decimal('0.000001388888888889'))

    Raises `ZeroDivisionError` if `units` is 0.
    """
    if not units:
        raise ZeroDivisionError("a unit price of 0 units is undefined")
    with localcontext() as context:
        context.prec = 120
        return (amount / units).quantize(Decimal(1).scaleb(-RATE_SCALE), rounding=ROUND_HALF_EVEN)


def share_out(amount: Decimal, shares: Sequence[Decimal]) -> list[Decimal]:
    """The amount over a few shares of either sign, by running sums as in `split`: the parts sum to the amount. (MO-1)

    A credit of $1 over charges of $2, $3 and a correction of −$1:

    >>> parts = share_out(Decimal("-1"), [Decimal(2), Decimal(3), Decimal(-1)])
    >>> [text(p) for p in parts], sum(parts)
    (['-0.5', '-0.75', '0.25'], Decimal('-1.000000000000'))

    Raises `ZeroDivisionError` if the shares sum to 0 and the amount is not; the caller decides the owner then.
    """
    whole = sum(shares, ZERO)
    if not whole:
        if amount:
            raise ZeroDivisionError("a share of 0 is undefined")
        return [quantize(ZERO) for _ in shares]
    parts, cumulative_share, previous_part = [], ZERO, ZERO
    with localcontext() as context:
        context.prec = 120
        for share in shares:
            cumulative_share += share
            cumulative_part = quantize(amount * cumulative_share / whole)
            parts.append(cumulative_part - previous_part)
            previous_part = cumulative_part
    return parts


def exchange_amounts(amounts: Sequence[Decimal], numerator: Decimal, denominator: Decimal) -> list[Decimal]:
    """Amounts times numerator / denominator, by running sums, so that the converted parts sum to the converted sum. (MO-1, RA-7)

    Three times $0.01 at 1.0842 dollars a euro: €0.03/1.0842, whichever way it is summed.

    >>> parts = exchange_amounts([Decimal("0.01")] * 3, Decimal(1), Decimal("1.0842"))
    >>> [str(p) for p in parts], sum(parts) == proportion(Decimal("0.03"), Decimal(1), Decimal("1.0842"))
    (['0.009223390518', '0.009223390519', '0.009223390518'], True)
    """
    cumulative_amount, previous_part, parts = ZERO, ZERO, []
    with localcontext() as context:
        context.prec = 120
        for amount in amounts:
            cumulative_amount += amount
            cumulative_part = quantize(cumulative_amount * numerator / denominator)
            parts.append(cumulative_part - previous_part)
            previous_part = cumulative_part
    return parts


def split(
    frame: pl.LazyFrame,
    *,
    amounts: Sequence[str],
    weight: str,
    pool: str | Sequence[str],
    order_by: Sequence[str],
) -> pl.LazyFrame:
    """Splits each pool's amounts over its rows in proportion to their weights, so that the parts sum to the whole. (MO-1)

    `frame` has one row per share; `amounts` are MONEY columns that repeat the pool's whole amount on each row; `weight` is a
    non-negative Int64 column that sums to less than 2^62 in a pool. Rows are taken in the order of `order_by`. With cumulative weights
    W_k, row k gets round(A·W_k/W) − round(A·W_{k−1}/W), half to even at twelve places: the sum telescopes to A.

    Returns the frame with each amount replaced by its share. A pool whose weights are all zero gets null shares: the
    caller decides the next step of the allocation cascade.

    A cent over three equal shares, at twelve places:

    >>> three = pl.LazyFrame({"pool": ["p"] * 3, "row": [1, 2, 3], "w": [1, 1, 1]}).with_columns(
    ...     cost=pl.lit(Decimal("0.01")).cast(MONEY))
    >>> shares = split(three, amounts=["cost"], weight="w", pool="pool", order_by=["row"]).collect()
    >>> [str(c) for c in shares["cost"]], sum(shares["cost"])
    (['0.003333333333', '0.003333333334', '0.003333333333'], Decimal('0.010000000000'))

    How it stays exact: A = q·W + r, so A·W_k/W = q·W_k + r·W_k/W, and r·W_k < W² < 2^124 fits a 128-bit integer for an
    amount of any size. Where all amounts and W² fit 64 bits, as those of hours and days do, so does the arithmetic.
    """
    keys = [pool] if isinstance(pool, str) else list(pool)
    total, upto, is_first = pl.col("__W"), pl.col("__Wk"), pl.col("__opens")
    # Sorted, a pool is a run of rows: its sums are differences of running sums, which is far cheaper than a window over keys.
    running = pl.col(weight).cast(pl.Int128).cum_sum()
    rows = (
        frame.sort([*keys, *order_by], maintain_order=True)
        .with_columns(
            __opens=pl.any_horizontal(pl.col(k).ne_missing(pl.col(k).shift(1)) for k in keys) | (pl.int_range(pl.len()) == 0),
            __run=running,
        )
        .with_columns(
            __from=pl.when(is_first).then(pl.col("__run") - pl.col(weight)).forward_fill(),
            __to=pl.when(is_first.shift(-1, fill_value=True)).then("__run").backward_fill(),
        )
        .with_columns(__Wk=pl.col("__run") - pl.col("__from"), __W=pl.col("__to") - pl.col("__from"))
        .drop("__run", "__from", "__to")
        .collect()
    )
    width = _width(rows, amounts)
    rows = rows.with_columns(total.cast(width), upto.cast(width))
    # The pool's amount and weight are the same on all its rows: divided once a pool, then repeated along the run.
    pool_index = is_first.cum_sum() - 1
    split_rows = rows.lazy()
    for name in amounts:
        whole = pl.col(name).cast(MONEY).to_physical().filter(is_first).cast(width)
        divisor = pl.when(total > 0).then(total)
        size = whole.abs()
        split_rows = split_rows.with_columns(
            __q=(size // divisor.filter(is_first)).gather(pool_index),
            __r=(size % divisor.filter(is_first)).gather(pool_index),
            __negative=(whole < 0).gather(pool_index),
            __divisor=divisor,
        )
        product = pl.col("__r") * upto
        split_rows = (
            split_rows.with_columns(__product=product, __floor=product // pl.col("__divisor"))
            .with_columns(
                __left=2 * (pl.col("__product") - pl.col("__floor") * pl.col("__divisor")),
                __cum=pl.col("__q") * upto + pl.col("__floor"),
            )
            .with_columns(
                __cum=pl.col("__cum")
                + (
                    (pl.col("__left") > pl.col("__divisor"))
                    | ((pl.col("__left") == pl.col("__divisor")) & (pl.col("__cum") % 2 == 1))
                ).cast(width)
            )
            .with_columns(__share=pl.col("__cum") - pl.when(is_first).then(0).otherwise(pl.col("__cum").shift(1)))
            .with_columns(from_units(pl.when("__negative").then(-1 * pl.col("__share")).otherwise("__share")).alias(name))
            .drop("__q", "__r", "__negative", "__divisor", "__product", "__floor", "__left", "__cum", "__share")
        )
    return split_rows.drop("__Wk", "__W", "__opens")


_NARROW_WEIGHT, _NARROW_AMOUNT = 1 << 31, 1 << 61


def _width(rows: pl.DataFrame, amounts: Sequence[str]) -> pl.DataType | type[pl.DataType]:
    """64 bits where every product of `split` fits them, else 128."""
    largest = rows.select(pl.col("__W").max(), *(pl.col(a).cast(MONEY).to_physical().abs().max().alias(a) for a in amounts)).row(
        0
    )
    weight, *sizes = (0 if value is None else int(str(value)) for value in largest)
    return pl.Int64 if weight < _NARROW_WEIGHT and all(size < _NARROW_AMOUNT for size in sizes) else pl.Int128


def from_units(units: pl.Expr) -> pl.Expr:
    """Whole 10^-12 units (Int128) as money.

    >>> pl.DataFrame({"u": [1_500_000_000_000]}).select(from_units(pl.col("u").cast(pl.Int128))).item()
    Decimal('1.500000000000')
    """
    return units.cast(pl.Decimal(38, 0)).map_batches(_shift, return_dtype=MONEY, is_elementwise=True)


def _shift(units: pl.Series) -> pl.Series:
    # Both dtypes are the same 128-bit integers; they differ only in the scale. Going through Arrow changes it without arithmetic.
    import pyarrow as pa

    arrow = units.to_arrow()
    if isinstance(arrow, pa.ChunkedArray):  # pragma: no cover - polars hands over one chunk today
        arrow = arrow.combine_chunks()
    money_array = pa.Array.from_buffers(pa.decimal128(38, SCALE), len(arrow), arrow.buffers(), arrow.null_count, arrow.offset)
    return pl.Series(units.name, pl.from_arrow(money_array)).cast(MONEY)


def known_sum(column: str) -> pl.Expr:
    """The sum of what is known of a column; null, not 0, where nothing of it is known. (MO-1b)

    >>> frame = pl.DataFrame({"key": [1, 1, 2], "cost": [Decimal(3), None, None]}, schema_overrides={"cost": MONEY})
    >>> frame.group_by("key").agg(known_sum("cost")).sort("key").rows()
    [(1, Decimal('3.000000000000')), (2, None)]
    """
    return pl.when(pl.col(column).count() > 0).then(pl.col(column).sum()).alias(column)


def weights(frame: pl.DataFrame, column: str, pool: str | Sequence[str]) -> pl.Series:
    """A decimal column as the integer weights `split` wants: exact while a pool's total stays under 2^62 units of its last digit that matters.

    Beyond that the least significant digits are dropped, for all rows alike; weights only need their proportions.

    >>> frame = pl.DataFrame({"pool": ["p", "p"], "tokens": [Decimal(2000), Decimal(4000)]}, schema_overrides={"tokens": MONEY})
    >>> w = weights(frame, "tokens", "pool"); (w[1] / w[0], w.dtype == pl.Int64)
    (2.0, True)
    """
    if not frame.height:
        return pl.Series(column, [], dtype=pl.Int64)
    keys = [pool] if isinstance(pool, str) else list(pool)
    units = pl.col(column).cast(MONEY).to_physical()
    # Tokens and requests are whole: then their own count is the weight, and twelve zeros need no room.
    whole = pl.lit(10**SCALE, dtype=pl.Int128)
    if frame.select((units % whole == 0).all()).item():
        units = units // whole
    largest = int(str(frame.select(units.abs().max()).item() or 0)) * frame.height
    if largest < WEIGHT_LIMIT // 2:
        return frame.select(units.cast(pl.Int64)).to_series()
    total = units.sum().over(keys)
    unit = pl.lit(1, dtype=pl.Int128)
    limit, step = WEIGHT_LIMIT // 2, 1
    while limit * step <= largest:
        unit = pl.when(total >= limit * step).then(pl.lit(step * 10, dtype=pl.Int128)).otherwise(unit)
        step *= 10
    return frame.select((units // unit).cast(pl.Int64).alias(column)).to_series()
