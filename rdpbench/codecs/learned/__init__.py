"""Learned codecs; ``docs/learned.md`` tells how one is made of what they share.

`codec` has the fields and methods of all, `systems` a network that codes and images to bitstreams and back, `entropy`
symbols to strings and back. `library` is CompressAI, imported without its warnings. Modules named ``network`` import
torch at their top: import them inside functions.
"""
