"""The probes: small networks trained on frozen latents, and the scores they reach.

`classify` probes what is done (attentive classifier), `regress` how it is done (physical actions).
"""
