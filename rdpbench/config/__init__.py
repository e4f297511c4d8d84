"""What was typed becomes settings.

``typed`` reads the words, ``bench`` composes them with conf/, ``listing`` says what there is.
"""
