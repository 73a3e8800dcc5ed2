-- Budgets of gateways in PostgreSQL: two tables, and one function that applies a batch of operations at once
-- (rootcost_litellm/operations.py says what each means). One lock per batch; its order is the order of decisions.
CREATE TABLE IF NOT EXISTS rootcost_level (
  key text PRIMARY KEY,
  cap bigint NOT NULL,
  committed bigint NOT NULL DEFAULT 0,
  reserved bigint NOT NULL DEFAULT 0,
  uncertain bigint NOT NULL DEFAULT 0,
  recall boolean NOT NULL DEFAULT false
);
CREATE TABLE IF NOT EXISTS rootcost_hold (
  id text PRIMARY KEY,
  state text NOT NULL,
  amounts jsonb NOT NULL,
  deadline_us bigint NOT NULL,
  finished_us bigint NOT NULL DEFAULT 0,
  sequence bigint NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS rootcost_hold_due ON rootcost_hold (state, deadline_us);
CREATE TABLE IF NOT EXISTS rootcost_epoch (one boolean PRIMARY KEY DEFAULT true CHECK (one), epoch text NOT NULL, ready_us bigint NOT NULL);

CREATE OR REPLACE FUNCTION rootcost_sums(wanted text) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('cap', cap::text, 'committed', committed::text, 'reserved', reserved::text, 'uncertain', uncertain::text,
    'left', (cap - committed - reserved - uncertain)::text) FROM rootcost_level WHERE key = wanted
$$;

CREATE OR REPLACE FUNCTION rootcost_add(state text, amounts jsonb, sign integer) RETURNS void LANGUAGE sql AS $$
  UPDATE rootcost_level AS level SET
    reserved = reserved + CASE WHEN state IN ('open') THEN total ELSE 0 END,
    uncertain = uncertain + CASE WHEN state IN ('uncertain') THEN total ELSE 0 END,
    committed = committed + CASE WHEN state IN ('committed') THEN total ELSE 0 END
  FROM (SELECT pair->>0 AS key, sign * sum((pair->>1)::bigint)::bigint AS total FROM jsonb_array_elements(amounts) AS pair GROUP BY 1) AS change
  WHERE level.key = change.key
$$;

CREATE OR REPLACE FUNCTION rootcost_missing(amounts jsonb) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('ok', false, 'state', '', 'missing', jsonb_agg(pair->>0 ORDER BY place))
  FROM jsonb_array_elements(amounts) WITH ORDINALITY AS elements(pair, place)
  WHERE NOT EXISTS (SELECT FROM rootcost_level WHERE key = pair->>0) HAVING count(*) > 0
$$;

-- What replicas have of a level and may give back.
CREATE OR REPLACE FUNCTION rootcost_leased(level text) RETURNS text LANGUAGE sql AS $$
  SELECT coalesce(sum((amounts->0->>1)::bigint), 0)::text FROM rootcost_hold
  WHERE state = 'open' AND id LIKE 'lease/%' AND amounts->0->>0 = level
$$;

CREATE OR REPLACE FUNCTION rootcost_ready() RETURNS boolean LANGUAGE sql AS $$
  SELECT NOT EXISTS (SELECT FROM rootcost_epoch WHERE ready_us > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
$$;

-- Why not all levels have room. Nothing is added before every level was looked at.
CREATE OR REPLACE FUNCTION rootcost_refusal(amounts jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE refusal jsonb := rootcost_missing(amounts); pair jsonb; sums jsonb; leased bigint;
BEGIN
  IF refusal IS NOT NULL THEN RETURN refusal; END IF;
  IF NOT rootcost_ready() THEN RETURN jsonb_build_object('ok', false, 'state', '', 'wait', true); END IF;
  FOR pair IN SELECT value FROM jsonb_array_elements(amounts) LOOP
    sums := rootcost_sums(pair->>0);
    IF (pair->>1)::bigint > 0 AND (pair->>1)::bigint > (sums->>'left')::bigint THEN
      leased := rootcost_leased(pair->>0)::bigint;
      IF leased > 0 AND (pair->>1)::bigint <= (sums->>'left')::bigint + leased THEN
        UPDATE rootcost_level SET recall = true WHERE key = pair->>0;
      END IF;
      RETURN jsonb_build_object('ok', false, 'state', '', 'level', pair->>0, 'leased', leased::text) || sums;
    END IF;
  END LOOP;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION rootcost_save(hold_id text, new_state text, new_amounts jsonb, new_deadline bigint, now_us bigint, new_sequence bigint)
RETURNS jsonb LANGUAGE sql AS $$
  INSERT INTO rootcost_hold (id, state, amounts, deadline_us, finished_us, sequence)
  VALUES (hold_id, new_state, new_amounts, new_deadline, now_us, new_sequence)
  ON CONFLICT (id) DO UPDATE SET state = excluded.state, amounts = excluded.amounts, deadline_us = excluded.deadline_us,
    finished_us = excluded.finished_us, sequence = excluded.sequence
  RETURNING jsonb_build_object('ok', true, 'state', new_state)
$$;

CREATE OR REPLACE FUNCTION rootcost_move(operation jsonb, hold rootcost_hold, now_us bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  kind text := operation->>'op';
  before text := coalesce(hold.state, '');
  amounts jsonb := coalesce(operation->'amounts', '[]');
  growth jsonb;
  refusal jsonb;
BEGIN
  CASE kind
  WHEN 'reserve' THEN
    IF hold.id IS NOT NULL THEN RETURN jsonb_build_object('ok', before = 'open', 'state', before); END IF;
    refusal := rootcost_refusal(amounts);
    IF refusal IS NOT NULL THEN RETURN refusal; END IF;
    PERFORM rootcost_add('open', amounts, 1);
    RETURN rootcost_save(operation->>'id', 'open', amounts, now_us + (operation->>'seconds')::bigint * 1000000, now_us, 0);
  WHEN 'resize' THEN
    IF before <> 'open' THEN RETURN jsonb_build_object('ok', false, 'state', before); END IF;
    SELECT coalesce(jsonb_agg(jsonb_build_array(key, amount::text) ORDER BY place), '[]') INTO growth FROM (
      SELECT pair->>0 AS key, place, (pair->>1)::bigint - coalesce((SELECT (held->>1)::bigint FROM jsonb_array_elements(hold.amounts) AS held
        WHERE held->>0 = pair->>0), 0) AS amount
      FROM jsonb_array_elements(amounts) WITH ORDINALITY AS elements(pair, place)) AS changes WHERE amount > 0;
    refusal := rootcost_refusal(growth);
    IF refusal IS NOT NULL THEN RETURN refusal; END IF;
    PERFORM rootcost_add('open', hold.amounts, -1);
    PERFORM rootcost_add('open', amounts, 1);
    RETURN rootcost_save(hold.id, 'open', amounts, hold.deadline_us, now_us, 0);
  WHEN 'commit', 'settle' THEN
    IF kind = 'commit' AND before = 'committed' THEN RETURN jsonb_build_object('ok', true, 'state', before); END IF;
    IF kind = 'settle' AND before <> 'uncertain' THEN RETURN jsonb_build_object('ok', false, 'state', before); END IF;
    refusal := rootcost_missing(amounts);
    IF refusal IS NOT NULL THEN RETURN refusal; END IF;
    IF before IN ('open', 'uncertain') THEN PERFORM rootcost_add(before, hold.amounts, -1); END IF;
    PERFORM rootcost_add('committed', amounts, 1);
    RETURN rootcost_save(operation->>'id', 'committed', amounts, coalesce(hold.deadline_us, 0), now_us, 0);
  WHEN 'release' THEN
    IF before NOT IN ('', 'open') THEN RETURN jsonb_build_object('ok', before = 'released', 'state', before); END IF;
    IF before = 'open' THEN PERFORM rootcost_add('open', hold.amounts, -1); END IF;
    RETURN rootcost_save(operation->>'id', 'released', '[]', coalesce(hold.deadline_us, 0), now_us, 0);
  WHEN 'uncertain' THEN
    IF before NOT IN ('', 'open') THEN RETURN jsonb_build_object('ok', before = 'uncertain', 'state', before); END IF;
    refusal := rootcost_missing(amounts);
    IF refusal IS NOT NULL THEN RETURN refusal; END IF;
    IF before = 'open' THEN PERFORM rootcost_add('open', hold.amounts, -1); END IF;
    PERFORM rootcost_add('uncertain', amounts, 1);
    RETURN rootcost_save(operation->>'id', 'uncertain', amounts, coalesce(hold.deadline_us, now_us), now_us, 0);
  END CASE;
END $$;

CREATE OR REPLACE FUNCTION rootcost_lease(operation jsonb, hold rootcost_hold, now_us bigint, lease_calls bigint) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
  level text := operation->>'level';
  amount bigint := 0;
  last_sequence bigint := 0;
  granted bigint := 0;
  need bigint := (operation->>'need')::bigint;
  back bigint;
  share bigint;
  recall boolean;
BEGIN
  IF rootcost_sums(level) IS NULL THEN RETURN jsonb_build_object('ok', false, 'missing', jsonb_build_array(level)); END IF;
  IF hold.state IN ('open', 'uncertain') THEN
    amount := (hold.amounts->0->>1)::bigint;
    last_sequence := hold.sequence;
    PERFORM rootcost_add(hold.state, hold.amounts, -1);
    PERFORM rootcost_add('open', hold.amounts, 1);
  END IF;
  IF (operation->>'sequence')::bigint > last_sequence THEN
    last_sequence := (operation->>'sequence')::bigint;
    PERFORM rootcost_add('committed', jsonb_build_array(jsonb_build_array(level, operation->>'used')), 1);
    back := least(amount, (operation->>'returned')::bigint);
    amount := amount - back;
    PERFORM rootcost_add('open', jsonb_build_array(jsonb_build_array(level, back::text)), -1);
    PERFORM rootcost_save(operation->>'id', 'open', jsonb_build_array(jsonb_build_array(level, amount::text)),
      now_us + (operation->>'seconds')::bigint * 1000000, now_us, last_sequence);
    IF rootcost_leased(level)::bigint = 0 THEN UPDATE rootcost_level SET recall = false WHERE key = level; END IF;
    SELECT rootcost_level.recall INTO recall FROM rootcost_level WHERE key = level;
    share := floor((rootcost_sums(level)->>'left')::numeric / (2 * (operation->>'replicas')::bigint));
    IF need > 0 AND share >= lease_calls * need AND rootcost_ready() AND NOT recall THEN granted := share; END IF;
    amount := amount + granted;
    PERFORM rootcost_add('open', jsonb_build_array(jsonb_build_array(level, granted::text)), 1);
  END IF;
  PERFORM rootcost_save(operation->>'id', 'open', jsonb_build_array(jsonb_build_array(level, amount::text)),
    now_us + (operation->>'seconds')::bigint * 1000000, now_us, last_sequence);
  SELECT rootcost_level.recall INTO recall FROM rootcost_level WHERE key = level;
  RETURN jsonb_build_object('ok', true, 'recall', recall, 'amount', amount::text, 'granted', granted::text, 'leased', rootcost_leased(level)) || rootcost_sums(level);
END $$;

CREATE OR REPLACE FUNCTION rootcost_apply(operations jsonb, lease_calls bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  results jsonb := '[]';
  result jsonb;
  operation jsonb;
  hold rootcost_hold;
  now_us bigint;
  moved integer;
BEGIN
  PERFORM pg_advisory_xact_lock(7268673, 1);
  now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
  FOR operation IN SELECT value FROM jsonb_array_elements(operations) LOOP
    CASE operation->>'op'
    WHEN 'level' THEN
      UPDATE rootcost_level SET cap = (operation->>'cap')::bigint,
        committed = CASE WHEN (operation->>'reset')::boolean THEN coalesce((operation->>'committed')::bigint, 0) ELSE committed END
      WHERE key = operation->>'level';
      IF NOT FOUND AND operation ? 'committed' THEN
        INSERT INTO rootcost_level (key, cap, committed)
        VALUES (operation->>'level', (operation->>'cap')::bigint, (operation->>'committed')::bigint);
      END IF;
      result := coalesce(jsonb_build_object('ok', true) || rootcost_sums(operation->>'level'),
        jsonb_build_object('ok', false, 'missing', jsonb_build_array(operation->>'level')));
    WHEN 'expire' THEN
      WITH due AS (
        UPDATE rootcost_hold SET state = 'uncertain' WHERE state = 'open' AND deadline_us <= now_us
          AND EXISTS (SELECT FROM jsonb_array_elements(amounts) AS pair WHERE (pair->>1)::bigint <> 0)
        RETURNING amounts
      ), sums AS (
        SELECT pair->>0 AS key, sum((pair->>1)::bigint)::bigint AS total FROM due, jsonb_array_elements(due.amounts) AS pair GROUP BY 1
      ), levels AS (
        UPDATE rootcost_level AS level SET reserved = reserved - total, uncertain = uncertain + total FROM sums WHERE level.key = sums.key
      )
      SELECT count(*) INTO moved FROM due;
      DELETE FROM rootcost_hold WHERE state = 'open' AND deadline_us <= now_us;
      DELETE FROM rootcost_hold WHERE state IN ('committed', 'released') AND finished_us <= now_us - (operation->>'keep')::bigint * 1000000;
      result := jsonb_build_object('ok', true, 'moved', moved);
    WHEN 'epoch' THEN
      INSERT INTO rootcost_epoch (epoch, ready_us)
      VALUES (operation->>'proposed', now_us + (operation->>'grace_seconds')::bigint * 1000000) ON CONFLICT DO NOTHING;
      SELECT jsonb_build_object('ok', true, 'epoch', epoch) INTO result FROM rootcost_epoch;
    WHEN 'holds' THEN
      SELECT jsonb_build_object('ok', true, 'holds', coalesce(jsonb_agg(listed), '[]')) INTO result FROM (
        SELECT id, state, amounts, deadline_us::text FROM rootcost_hold WHERE state IN ('open', 'uncertain')
          AND EXISTS (SELECT FROM jsonb_array_elements(amounts) AS pair WHERE (pair->>1)::bigint <> 0)
        ORDER BY rootcost_hold.deadline_us, id LIMIT (operation->>'limit')::integer) AS listed;
    WHEN 'read' THEN
      SELECT jsonb_build_object('ok', true, 'levels', coalesce(jsonb_agg(jsonb_build_object('key', key) || rootcost_sums(key)), '[]'))
      INTO result FROM rootcost_level WHERE operation->'levels' ? key;
    ELSE
      SELECT * INTO hold FROM rootcost_hold WHERE id = operation->>'id';
      IF operation->>'op' = 'lease' THEN result := rootcost_lease(operation, hold, now_us, lease_calls);
      ELSE result := rootcost_move(operation, hold, now_us); END IF;
    END CASE;
    results := results || jsonb_build_array(result);
  END LOOP;
  RETURN results;
END $$;
