-- The peer: the same facts to the same costs, in the best DuckDB SQL we could write.
-- Small integers for agents, edges by one hash join each for parents and links, a recursive walk from the roots that carries initiator, executor and the
-- nearest call above, leaf-only usage, one rollup, pools, and the exact cumulative split in 128-bit integers, its running value taken once and differenced.
CREATE TEMP TABLE agent AS
SELECT (row_number() OVER ())::USMALLINT AS id, name, team
FROM (SELECT DISTINCT agent_name AS name FROM read_parquet($spans) WHERE agent_name IS NOT NULL)
LEFT JOIN (SELECT agent AS name, team FROM read_csv($registry)) USING (name);

CREATE TEMP TABLE node AS
SELECT (row_number() OVER ())::INTEGER AS id, trace_key, span_key, parent_key, link_trace_key, link_span_key, a.id AS agent, start_time, end_time,
       response_model AS model, input_tokens, output_tokens, usage_scope IS NOT NULL AS is_call
FROM read_parquet($spans) s LEFT JOIN agent a ON a.name = s.agent_name;

CREATE TEMP TABLE edge AS
SELECT n.id, p.id AS parent, n.agent, p.is_call AS under_call, false AS by_link
FROM node n JOIN node p ON p.trace_key = n.trace_key AND p.span_key = n.parent_key
UNION ALL
SELECT n.id, p.id, n.agent, false, true
FROM node n JOIN node p ON p.trace_key = n.link_trace_key AND p.span_key = n.link_span_key
WHERE n.parent_key IS NULL;

CREATE TEMP TABLE walk AS
WITH RECURSIVE down(id, root, initiator, executor, call_above) AS (
    SELECT n.id, n.id, n.agent, n.agent, NULL::INTEGER FROM node n ANTI JOIN edge e ON e.id = n.id
    UNION ALL
    SELECT e.id, d.root, coalesce(d.initiator, e.agent), coalesce(e.agent, d.executor),
           CASE WHEN e.by_link THEN NULL WHEN e.under_call THEN d.id ELSE d.call_above END
    FROM down d JOIN edge e ON e.parent = d.id
)
SELECT * FROM down;

CREATE TEMP TABLE call AS
SELECT time_bucket(INTERVAL 1 HOUR, n.start_time) AS hour, w.id, w.root, w.initiator, w.executor, n.model, n.input_tokens, n.output_tokens
FROM node n JOIN walk w USING (id)
WHERE n.is_call AND n.id NOT IN (SELECT call_above FROM walk JOIN node USING (id) WHERE node.is_call AND call_above IS NOT NULL);

-- pages: what the chain pages stand on, calls and one row a chain with the traces it runs through.
CREATE TEMP TABLE word AS SELECT trace_key, span_key, trace_id, span_id, name FROM read_parquet($spans);

COPY (
    SELECT c.hour, n.start_time, n.trace_key, n.span_key, r.trace_id || ':' || r.span_id AS chain_id, i.name AS initiator, i.team AS initiator_team,
           x.name AS executor, x.team AS executor_team, c.model, c.input_tokens, c.output_tokens
    FROM call c JOIN node n ON n.id = c.id JOIN node t ON t.id = c.root
    JOIN word r ON r.trace_key = t.trace_key AND r.span_key = t.span_key
    LEFT JOIN agent i ON i.id = c.initiator LEFT JOIN agent x ON x.id = c.executor
) TO $calls (FORMAT parquet, COMPRESSION zstd);

COPY (
    SELECT o.trace_id || ':' || o.span_id AS chain_id, o.name, s.start_time, s.end_time, s.spans, s.trace_keys, i.name AS initiator,
           i.team AS initiator_team, m.calls, m.tokens
    FROM (SELECT w.root, min(n.start_time) AS start_time, max(n.end_time) AS end_time, count(*) AS spans, list(DISTINCT n.trace_key) AS trace_keys
          FROM walk w JOIN node n USING (id) GROUP BY w.root) s
    JOIN (SELECT root, first(initiator) AS initiator, count(*) AS calls, sum(input_tokens + output_tokens) AS tokens FROM call GROUP BY root) m USING (root)
    JOIN node t ON t.id = s.root JOIN word o ON o.trace_key = t.trace_key AND o.span_key = t.span_key
    LEFT JOIN agent i ON i.id = m.initiator
) TO $chains (FORMAT parquet, COMPRESSION zstd);

-- costs
CREATE TEMP TABLE use AS
SELECT hour, initiator, executor, model, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, count(*) AS calls
FROM call GROUP BY ALL;

CREATE TEMP TABLE long AS
SELECT hour, initiator, executor, model, 'input_tokens' AS meter, input_tokens AS quantity, calls FROM use WHERE input_tokens > 0
UNION ALL
SELECT hour, initiator, executor, model, 'output_tokens', output_tokens, calls FROM use WHERE output_tokens > 0;

CREATE TEMP TABLE pool AS
SELECT charge_period_start AS hour, split_part(sku_meter, ', ', 1) AS model, split_part(sku_meter, ', ', 2) AS meter, billing_currency AS currency,
       sum(consumed_quantity)::HUGEINT AS billed,
       (sum(billed_cost) * 1000000000000)::HUGEINT AS billed_cost, (sum(effective_cost) * 1000000000000)::HUGEINT AS effective_cost,
       (sum(list_cost) * 1000000000000)::HUGEINT AS list_cost, (sum(contracted_cost) * 1000000000000)::HUGEINT AS contracted_cost
FROM read_parquet($charges) WHERE charge_category = 'Usage' GROUP BY ALL;

CREATE TEMP TABLE held AS
SELECT p.*, l.logged, CASE WHEN abs(p.billed - l.logged) * 200 <= p.billed THEN l.logged ELSE greatest(p.billed, l.logged) END AS whole
FROM pool p JOIN (SELECT hour, model, meter, sum(quantity)::HUGEINT AS logged FROM long GROUP BY ALL) l USING (hour, model, meter);

-- round half to even of a * k / w, in whole 10^-12
CREATE MACRO part_of(a, k, w) AS (
    (a * k) // w + CASE WHEN 2 * ((a * k) % w) > w OR (2 * ((a * k) % w) = w AND ((a * k) // w) % 2 = 1) THEN 1 ELSE 0 END
);

CREATE TEMP TABLE part AS
SELECT h.hour, h.model, h.meter, h.currency, l.initiator, l.executor, l.quantity,
       part_of(h.billed_cost, upto, h.whole) AS billed_cost, part_of(h.effective_cost, upto, h.whole) AS effective_cost,
       part_of(h.list_cost, upto, h.whole) AS list_cost, part_of(h.contracted_cost, upto, h.whole) AS contracted_cost
FROM held h JOIN (
    SELECT *, sum(quantity) OVER (PARTITION BY hour, model, meter ORDER BY initiator, executor)::HUGEINT AS upto FROM long
) l USING (hour, model, meter);

COPY (
    SELECT p.hour, p.model, p.meter, p.currency, 'metered' AS cost_class, i.name AS initiator, i.team AS initiator_team, x.name AS executor,
           x.team AS executor_team, p.quantity,
           p.billed_cost - coalesce(lag(p.billed_cost) OVER w, 0) AS billed_cost,
           p.effective_cost - coalesce(lag(p.effective_cost) OVER w, 0) AS effective_cost,
           p.list_cost - coalesce(lag(p.list_cost) OVER w, 0) AS list_cost,
           p.contracted_cost - coalesce(lag(p.contracted_cost) OVER w, 0) AS contracted_cost
    FROM part p LEFT JOIN agent i ON i.id = p.initiator LEFT JOIN agent x ON x.id = p.executor
    WINDOW w AS (PARTITION BY p.hour, p.model, p.meter ORDER BY p.initiator, p.executor)
    UNION ALL
    SELECT hour, model, meter, currency, 'unallocated', NULL, NULL, NULL, NULL, NULL,
           billed_cost - part_of(billed_cost, logged, whole), effective_cost - part_of(effective_cost, logged, whole),
           list_cost - part_of(list_cost, logged, whole), contracted_cost - part_of(contracted_cost, logged, whole)
    FROM held WHERE whole > logged
    UNION ALL
    SELECT hour, model, meter, currency, 'unallocated', NULL, NULL, NULL, NULL, NULL, billed_cost, effective_cost, list_cost, contracted_cost
    FROM pool ANTI JOIN held USING (hour, model, meter)
) TO $out (FORMAT parquet, COMPRESSION zstd);
