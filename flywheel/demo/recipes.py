"""Recipes of cards by the capability that they teach: the demo's entry point of the group `flywheel.recipes`."""

from __future__ import annotations

from flywheel.demo.cards import group_cards, single_cards
from flywheel.demo.edits import keep_edits, move_edits, recolour_edits, reword_edits
from flywheel.demo.word_cards import word_cards

RECIPES = {
    "object": (single_cards,),
    "color": (single_cards, group_cards, word_cards),
    "position": (single_cards,),
    "count": (group_cards,),
    "typography": (word_cards,),
    "editing": (recolour_edits, move_edits),
    "text_editing": (reword_edits,),
    "identity": (keep_edits,),
}
