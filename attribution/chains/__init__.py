"""Chains: which calls were made, what each span hangs on, and which agent and team started it. (CH, ID, CA)"""
