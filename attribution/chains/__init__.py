"""Chains: merges signals to calls, links spans by parents and links, and resolves who started and who executed each call. (CH, ID, CA)"""
