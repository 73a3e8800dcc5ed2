"""Classification: canonical names of providers, models, meters, units and SKUs. What they mean is data: the CSV files beside this module."""
