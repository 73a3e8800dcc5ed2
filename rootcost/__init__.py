"""The roof: the command line, the scheduler, the service and the demo. Everything that calls the others, and nothing else."""
