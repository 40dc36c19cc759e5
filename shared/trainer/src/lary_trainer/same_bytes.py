"""Sources of the trainer that are known to train the same bytes as older ones: the only file that no training's key
depends on (`registry.training_sha256`), apart from the command line.

A change of comments, messages or of what the watchdog hears makes no other checkpoint, and would give every training a
new key. Whoever changes a file so, lists it here after trainings of both sources gave equal files; a file that is not
listed, or listed with other bytes, gives new keys.
"""

FIRST = {
    "child.py": "fbd99916b3365f7478b3ad06753a7471bfd51683081191ba6bea320d236c2d55",
    "registry.py": "572577de124b8fdc423d450d55ac3066c3e6368c2dc26032baa781392438f7ef",
    "train.py": "0a6d0dc048334b97615a76da89a8aaeb386fefaae3be900730624b8ce26a9195",
    "training.py": "05a8fc5b456ef723a553122482f5983b40c48e3ba3a309b175c2d19dfad8599e",
}
"""By file: the sha256 that stands for it in keys."""
SAME_BYTES = {
    "43c004eae90d28f6ca1798e60cf0f7456b94fbfde2e2fc09b37190e40dcefa66",  # child.py
    "60748d79ead2d8bfd13aab20c37f449f8eb53963bfcf860774ed965f2f186c74",  # registry.py
    "dd06d6beb3475fefab9c066d1411b3d1a6f93d686f3fa6804508168d67f66927",  # train.py
    "df5b29adac7149bd4eae101c8a3cab57deea4552e14cd1de52117e46ce393cce",  # training.py
}
"""sha256 of newer ones, which train the same bytes."""
