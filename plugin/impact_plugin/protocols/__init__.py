"""The wire protocols: each file knows one router endpoint's JSON and rules, and nothing of impact.com."""
