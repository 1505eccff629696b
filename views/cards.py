"""A row of figures: each with what it counts above it, and what else one has to know below it."""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from views import words


@dataclass(frozen=True, slots=True)
class Card:
    """One figure, in text."""

    label: str
    value: str
    note: str = ""
    help: str | None = None
    alarm: bool = False  # what is shown is not as it should be


def draw_cards(cards: Sequence[Card], key: str, columns: int | None = None) -> None:
    """The cards in rows of `columns`, fewer where the page is narrow; labels and notes wrap, nothing is cut off."""
    with st.grid(columns or len(cards), min_column_width=165, gap="small", key=key):
        for card in cards:
            with st.container(border=True, height="stretch", gap="xxsmall"):
                st.caption(words.plain(card.label), help=words.plain(card.help) if card.help else None)
                st.metric(words.plain(card.label), words.plain(card.value), label_visibility="collapsed")
                note = words.plain(card.note)
                st.caption(f":red[:material/warning: {note}]" if card.alarm else note)
