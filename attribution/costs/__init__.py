"""Costs: the charges of a month are matched with hourly usage, and every remainder gets an owner or a reason. (RA, ES, MO)"""
