"""The vocabulary of the made-up world: short common words, most of them one token each."""

from __future__ import annotations

from typing import NamedTuple


def _pool(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _pool(
    "Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Mary Noah Olive Paul "
    "Rose Sam Tina Victor Wendy Adam Bella Carl Dora Erik Fiona George Helen Ivan Jane Karl"
)

PLACES = _pool(
    "house farm mill castle cabin tower village market harbor forest lake hill bridge garden "
    "school church island valley beach cave river station library palace inn camp"
)

OBJECTS = _pool(
    "lamp key book rope map bell coin ring cup box knife letter clock mirror drum flute basket "
    "blanket candle hat spoon stone shell feather button needle ladder brush"
)

ANIMALS = _pool("dog cat horse goat sheep cow duck goose rabbit fox bear wolf mouse owl hen donkey")

PET_NAMES = _pool("Milo Luna Rex Bruno Daisy Pip Coco Otto Ruby Max Fluffy Toby")

FOODS = _pool("bread soup cheese rice fish pie cake beans eggs corn stew honey")

COLORS = _pool("red blue green yellow white black brown gray")

ADJECTIVES = _pool("old new small big heavy light broken shiny dirty clean pretty strange")

WEATHER = _pool("sunny rainy windy cold warm foggy snowy stormy")

SECRET_WORDS = _pool(
    "apple cloud silver window summer tiger thunder butter pencil dragon winter lemon "
    "ocean meadow orange planet sugar engine desert ribbon cotton puzzle spider temple"
)


class Job(NamedTuple):
    """What someone is, where they work, and what they do there."""

    title: str
    place: str
    action: str


JOBS = (
    Job("baker", "the bakery", "bake fresh bread"),
    Job("fisher", "the sea", "catch fish with a net"),
    Job("teacher", "the school", "teach the children"),
    Job("doctor", "the clinic", "help sick people"),
    Job("farmer", "the field", "plant corn and beans"),
    Job("miller", "the mill", "grind the wheat into flour"),
    Job("tailor", "the shop", "sew a warm coat"),
    Job("gardener", "the park", "water the flowers"),
    Job("painter", "the studio", "paint a picture"),
    Job("sailor", "the ship", "raise the sails"),
    Job("miner", "the mine", "dig for coal"),
    Job("hunter", "the woods", "follow the deer"),
    Job("cook", "the kitchen", "make a pot of soup"),
    Job("smith", "the forge", "shape the hot iron"),
    Job("nurse", "the hospital", "care for the babies"),
    Job("singer", "the theater", "sing a long song"),
    Job("driver", "the garage", "start the truck"),
    Job("shepherd", "the hills", "watch over the sheep"),
)

KINDS: dict[str, tuple[str, ...]] = {
    "fruit": _pool("apple pear plum peach cherry melon grape banana"),
    "animal": _pool("dog cat horse goat sheep duck rabbit fox"),
    "tool": _pool("hammer saw drill shovel wrench rake axe chisel"),
    "clothing": _pool("shirt coat hat sock glove scarf dress belt"),
    "vehicle": _pool("car truck boat train bus bike wagon ship"),
    "building": _pool("house barn tower church school castle cabin mill"),
}

ITEM_ADJECTIVES = (*COLORS, *ADJECTIVES, "lost", "cheap", "lovely", "plain")

COUNT_STARTS = tuple(range(60))
COUNT_STEPS = (1, 2, 3, 4, 5, 10)
COUNT_LENGTH = 5

COPY_WORDS = (*OBJECTS, *ANIMALS, *FOODS)
