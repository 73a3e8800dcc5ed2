"""Budgets: their terms and periods, what counts against them, how they stand, and how they are changed.

terms        what a budget limits, and what is no budget
periods      the window of a period that an instant lies in
spend        cost by instant of use and scope, from the published ledger
status       billed, estimated, encumbered, available, forecast and state of each budget in a window
revisions    the budgets in force, and changes of them: nested, approved, audited
nesting      whether a budget fits into what its parent leaves
approvals    raises that need a second person
as_code      budgets.yaml: plan, apply, export
burn_rate    whether money is spent so fast that somebody must know now
"""
