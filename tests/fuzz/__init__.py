"""Fuzzing: one function a target, ``target(data: bytes) -> None``, that raises when a promise is broken.

atheris (`with_atheris`) and hypothesis (`with_hypothesis`) drive the same functions; ``scripts/fuzz.py`` runs both, and
``tests/test_fuzz.py`` replays the corpus. Each target checks what holds for any bytes, and most compare with an oracle
that reads the whole buffer at once in the most naive way (`event_reader`, `whole_reader`, `site_reader`,
`tunnel_reader`).
"""
