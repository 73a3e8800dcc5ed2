"""The service: scheduler, receivers, alert delivery, and the processes that `rootcost serve` starts."""
