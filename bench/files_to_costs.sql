-- The peer: the same facts to the same costs, in the best DuckDB SQL we could write.
-- Edges by one hash join each for parents and links, a recursive walk from the roots that carries initiator, executor and the nearest
-- call above, leaf-only usage, one rollup, pools, and the exact cumulative split in 128-bit integers.
CREATE TEMP TABLE node AS
SELECT row_number() OVER () AS id, trace_id, span_id, name, end_time, trace_key, span_key, parent_key, link_trace_key, link_span_key, agent_name, start_time,
       response_model AS model, input_tokens, output_tokens, usage_scope IS NOT NULL AS is_call
FROM read_parquet($spans);

CREATE TEMP TABLE edge AS
SELECT n.id, p.id AS parent FROM node n JOIN node p ON p.trace_key = n.trace_key AND p.span_key = n.parent_key
UNION ALL
SELECT n.id, p.id AS parent FROM node n JOIN node p ON p.trace_key = n.link_trace_key AND p.span_key = n.link_span_key
WHERE n.parent_key IS NULL;

CREATE TEMP TABLE walk AS
WITH RECURSIVE down(id, root, initiator, executor, call_above) AS (
    SELECT n.id, n.id, n.agent_name, n.agent_name, NULL::BIGINT FROM node n ANTI JOIN edge e ON e.id = n.id
    UNION ALL
    SELECT n.id, d.root, coalesce(d.initiator, n.agent_name), coalesce(n.agent_name, d.executor), CASE WHEN p.is_call THEN p.id ELSE d.call_above END
    FROM down d JOIN edge e ON e.parent = d.id JOIN node n ON n.id = e.id JOIN node p ON p.id = d.id
)
SELECT * FROM down;

CREATE TEMP TABLE owner AS SELECT agent, team FROM read_csv($registry);

CREATE TEMP TABLE call AS
SELECT time_bucket(INTERVAL 1 HOUR, n.start_time) AS hour, w.root, n.trace_id, n.span_id, n.start_time, w.initiator, i.team AS initiator_team,
       w.executor, x.team AS executor_team, n.model, n.input_tokens, n.output_tokens
FROM node n JOIN walk w USING (id)
LEFT JOIN owner i ON i.agent = w.initiator LEFT JOIN owner x ON x.agent = w.executor
WHERE n.is_call AND n.id NOT IN (SELECT call_above FROM walk JOIN node USING (id) WHERE node.is_call AND call_above IS NOT NULL);

-- What the chain pages stand on: calls, and one row a chain with the traces it runs through.
COPY (SELECT c.*, r.trace_id || ':' || r.span_id AS chain_id FROM call c JOIN node r ON r.id = c.root) TO $calls (FORMAT parquet);
COPY (
    SELECT r.trace_id || ':' || r.span_id AS chain_id, r.name, s.*, m.* EXCLUDE (root)
    FROM (SELECT w.root, min(n.start_time) AS start_time, max(n.end_time) AS end_time, count(*) AS spans, list(DISTINCT n.trace_id) AS trace_ids
          FROM walk w JOIN node n USING (id) GROUP BY w.root) s
    JOIN (SELECT root, first(initiator) AS initiator, first(initiator_team) AS initiator_team, count(*) AS calls,
                 sum(input_tokens + output_tokens) AS tokens FROM call GROUP BY root) m USING (root)
    JOIN node r ON r.id = s.root
) TO $chains (FORMAT parquet);

CREATE TEMP TABLE use AS
SELECT hour, initiator, initiator_team, executor, executor_team, model, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
       count(*) AS calls
FROM call GROUP BY ALL;

CREATE TEMP TABLE long AS
SELECT hour, initiator, initiator_team, executor, executor_team, model, 'input_tokens' AS meter, input_tokens AS quantity, calls FROM use WHERE input_tokens > 0
UNION ALL
SELECT hour, initiator, initiator_team, executor, executor_team, model, 'output_tokens', output_tokens, calls FROM use WHERE output_tokens > 0;

CREATE TEMP TABLE pool AS
SELECT charge_period_start AS hour, split_part(sku_meter, ', ', 1) AS model, split_part(sku_meter, ', ', 2) AS meter, billing_currency AS currency,
       sum(consumed_quantity)::HUGEINT AS billed,
       (sum(billed_cost) * 1000000000000)::HUGEINT AS billed_cost, (sum(effective_cost) * 1000000000000)::HUGEINT AS effective_cost,
       (sum(list_cost) * 1000000000000)::HUGEINT AS list_cost, (sum(contracted_cost) * 1000000000000)::HUGEINT AS contracted_cost
FROM read_parquet($charges) WHERE charge_category = 'Usage' GROUP BY ALL;

CREATE TEMP TABLE held AS
SELECT p.*, l.logged, CASE WHEN abs(p.billed - l.logged) * 200 <= p.billed THEN l.logged ELSE greatest(p.billed, l.logged) END AS whole
FROM pool p JOIN (SELECT hour, model, meter, sum(quantity)::HUGEINT AS logged FROM long GROUP BY ALL) l USING (hour, model, meter);

CREATE TEMP TABLE part AS
SELECT h.hour, h.model, h.meter, h.currency, l.initiator, l.initiator_team, l.executor, l.executor_team, l.quantity, h.whole,
       h.billed_cost, h.effective_cost, h.list_cost, h.contracted_cost,
       sum(l.quantity) OVER w::HUGEINT AS upto, coalesce(sum(l.quantity) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)::HUGEINT AS before
FROM held h JOIN long l USING (hour, model, meter)
WINDOW w AS (PARTITION BY h.hour, h.model, h.meter ORDER BY l.initiator, l.executor);

-- round half to even of a * k / w, in whole 10^-12
CREATE MACRO part_of(a, k, w) AS (
    (a * k) // w + CASE WHEN 2 * ((a * k) % w) > w OR (2 * ((a * k) % w) = w AND ((a * k) // w) % 2 = 1) THEN 1 ELSE 0 END
);

COPY (
    SELECT hour, model, meter, currency, 'metered' AS cost_class, initiator, initiator_team, executor, executor_team, quantity,
           part_of(billed_cost, upto, whole) - part_of(billed_cost, before, whole) AS billed_cost,
           part_of(effective_cost, upto, whole) - part_of(effective_cost, before, whole) AS effective_cost,
           part_of(list_cost, upto, whole) - part_of(list_cost, before, whole) AS list_cost,
           part_of(contracted_cost, upto, whole) - part_of(contracted_cost, before, whole) AS contracted_cost
    FROM part
    UNION ALL
    SELECT hour, model, meter, currency, 'unallocated', NULL, NULL, NULL, NULL, NULL,
           billed_cost - part_of(billed_cost, logged, whole), effective_cost - part_of(effective_cost, logged, whole),
           list_cost - part_of(list_cost, logged, whole), contracted_cost - part_of(contracted_cost, logged, whole)
    FROM held WHERE whole > logged
    UNION ALL
    SELECT hour, model, meter, currency, 'unallocated', NULL, NULL, NULL, NULL, NULL, billed_cost, effective_cost, list_cost, contracted_cost
    FROM pool ANTI JOIN held USING (hour, model, meter)
) TO $out (FORMAT parquet);
