"""Packed training: one worker trains many models of one task together.

`resident` trains chains of Linear layers on a CPU with compiled kernels, one model in cache after the other; `stacked` trains
any module in lockstep, its parameters stacked along a model axis, the step compiled or not; `calibration` chooses between them
and training alone.
"""
