"""Attribution: which agent, and which team, each dollar of a bill goes back to.

    classification  what names and SKUs mean          pricing  list price of a call          chains  who started a call
    usage           spans → calls, chains, hourly usage: once per span
    costs           charges × hourly usage → costs, and an owner or reason for the remainder
    monitoring      budgets, anomalies, drift, findings, differences between runs
    run             which months are due, compute, balance, publish

The steps of a run, with their inputs and results, in order. A month of usage is built by partition (`usage.build`):

    partitions.plan(store, month, settings)                          → partitions: connected traces, by interval of time
    rollup.build_rollup(spans, month, timeline, book, settings)      → rows of calls, chains, usage_hourly; its STEPS are:
        spans.read_spans(window, timeline)                           → spans
        as_of.index_owners(timeline, spans)                          → intervals in which no owner changes              (ID-1)
        span_index.index_spans(spans)                                → rows of spans by trace and span key
        spans.are_unique_spans(spans)                                → whether all rows are spans delivered once
        spans.select_signals(spans)                                  → signals: rows that report a call
        identity.drop_conflicting_claims(signals, as_of)             → signals without claims on another team           (CH-7)
        calls.merge_signals(signals)                                 → calls: one row per request attempt               (CA-1)
        nodes.build_nodes(spans, calls), nodes.place_calls           → nodes of chains; the node of each call
        forest.build_forest(nodes)                                   → parent and root of each node                     (CH-1 … CH-3)
        echoes.mark_echoes(calls, nodes, forest)                     → calls, marked where they repeat the one below    (CA-2b)
        metering.meter_calls(calls)                                  → calls with disjoint meters                       (CA-5)
        reading_rows.drop_native_readings(calls)                     → no open reading where the usage is the provider's own
        wrappers.keep_residuals(calls, forest)                       → leaves, silent ones with their part of a residual (CA-2a); what is set aside
        pricing.add_list_cost(calls, book), metering.flag_unpriced   → list cost of each meter                          (ES-2)
        identity.span_agents(nodes, as_of)                           → the agent that each node names                   (ID-2)
        ancestry.resolve_ancestry(nodes, forest, agents)             → agents and claims above each node
        ancestry.find_paths(calls, context)                          → paths from calls to roots, with weights          (CH-1)
        identity.resolve_owners(calls, paths, context, as_of)        → initiator and executor of each path              (CH-4, CH-5)
        dimensions.call_dimensions(calls, as_of, settings, book)     → account, region, model, … of each call           (RA-1a)
        flags.call_reasons(calls, paths, owners)                     → reasons of each path
        hourly.assign_cells(calls, paths, owners, …)                 → the row of usage_hourly of each path
        call_rows.first_paths(calls, paths)                          → the path whose owners a call displays
        chain_rows.build_chain_rows(nodes, forest, calls, owners)    → rows of chains
        call_rows.build_call_rows(calls, paths, owners, cells)       → rows of calls
        hourly.sum_cells(calls, paths, cells)                        → rows of usage_hourly: tokens and requests        (RA-1)
        resource_time.resource_hours(context, as_of)                 → rows of usage_hourly: seconds on resources       (RA-3)
        evidence.count_evidence(calls, dimensions)                   → how each emitter counts, and its reported costs  (CA-5, CA-6)
        set_aside.add_set_aside(evidence, set_aside, book, …)        → the same, with what echoes and wrappers repeat   (CA-2b)
        reading_rows.read_quantities(calls, paths, cells)            → usage that the record does not prove             (CA-5)
        rollup_rows.finish_rows(…)                                   → rows with month and rollup id

The costs of a month (`costs.month.compute_month_costs`), from its charges and that usage:

    charge_groups.build_charge_groups(charges)                       → charges summed to groups, with role and SKU      (RA-1)
    batches.matched_as(families, groups)                             → the bill's names of logged models and meters     (RA-1)
    batches.split_into_batches(groups, usage)                        → batches that can be matched independently
    matching.match_usage(groups, usage, tolerance)                   → costs of usage, unmatched groups, rates          (RA-1a, RA-2, RA-3)
    allocation.allocate(groups, unmatched, costs, timeline)          → owner, shared, idle, unallocated; credits, taxes (RA-4, RA-5)
    estimates.estimate_costs(open usage, ratios)                     → list price × the ratio of billed to list cost    (ES-1)
    drift.measure_drift(rates, past_rates)                           → how far estimates were from the bill             (ES-3)

Then, of all months of the run (`run.attribute`) and after it is published (`monitoring`):

    balance.control_totals(charges, costs), require_balanced         → charges in = costs out, or BalanceError          (MO-2)
    findings.publish_findings(store, month, costs)                   → problems with their money
    drift_alerts.raise_alerts(books, month, drift)                   → alerts of estimates that drifted                 (ES-3)
    budgets.evaluate(books, months)                                  → budget status and alerts
    anomalies.detect(books, months)                                  → unusual days
    run_diff.compare(books, old_run, new_run)                        → differences of two runs by cause                 (TI-2)

Reads facts and writes conclusions in the ledger's tables; knows neither the sources nor the API. `docs/architecture.md` has the way of a
span and of a charge, file by file.
"""
