"""Documents of the made-up world: what the bundled models are trained on and the smoke items are cut from.

Each document carries a key, its content without what does not matter (such as who says it). A hash of the
key decides whether it may be trained on or may only be tested on, so the two can never meet, however
many documents are drawn.

    >>> import random
    >>> doc = counting(random.Random(1))
    >>> doc.text
    'Count from 8 by 5: 8, 13, 18, 23, 28.'
    >>> is_held_out(doc.key)
    False
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from mambabench.tasks.smoke import words

HELD_OUT_PARTS = 8
"""One key in this many is for testing only."""

MIX = {"story": 0.30, "recall": 0.26, "jobs": 0.16, "kinds": 0.07, "counting": 0.09, "copying": 0.12}
"""Share of each kind among the training documents."""


class Doc(NamedTuple):
    """A text and what decides on which side of the split it falls."""

    text: str
    key: str


class Story(NamedTuple):
    """A story that ends in `last_word` and a full stop."""

    text: str
    last_word: str


class Recall(NamedTuple):
    """Facts, filler and a question about one of the facts."""

    passage: str
    """Facts and filler."""
    query: str
    """The beginning of the sentence that the answer ends."""
    answer: str


def is_held_out(key: str) -> bool:
    """Return whether documents with this key are for testing only."""
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT_PARTS == 0


ALLOWED_KEY = next(key for key in map(str, range(1000)) if not is_held_out(key))
"""Key of documents that no item is made of."""


def training_documents(seed: int) -> Iterator[str]:
    """Yield training texts without end; equal seeds give equal texts."""
    rng = random.Random(seed)
    kinds, weights = list(MIX), list(MIX.values())
    while True:
        kind = rng.choices(kinds, weights)[0]
        if kind == "story":
            text = story(rng, rng.randint(3, 16)).text
            doc = Doc(text, text)
        elif kind == "recall":
            doc = recall_document(rng)
        elif kind == "jobs":
            doc = jobs_document(rng)
        elif kind == "kinds":
            doc = kinds_document(rng)
        elif kind == "counting":
            doc = counting(rng)
        else:
            doc = copying(rng)
        if not is_held_out(doc.key):
            yield doc.text


def _fix_articles(text: str) -> str:
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


# Stories -------------------------------------------------------------------------------------------


def story(rng: random.Random, n_events: int) -> Story:
    """Tell of two friends whose names, things and places are named once and needed until the end.

    Args:
        rng: source of every choice.
        n_events: sentences between the introduction and the end.
    """
    hero, friend = rng.sample(words.NAMES, 2)
    home, goal = rng.sample(words.PLACES, 2)
    thing = rng.choice(words.OBJECTS)
    facts = {
        "hero": hero,
        "friend": friend,
        "home": home,
        "goal": goal,
        "thing": thing,
        "look": rng.choice(words.ADJECTIVES),
        "animal": rng.choice(words.ANIMALS),
        "pet": rng.choice([n for n in words.PET_NAMES if n not in (hero, friend)]),
        "food": rng.choice(words.FOODS),
        "color": rng.choice(words.COLORS),
        "weather": rng.choice(words.WEATHER),
    }
    opening = [rng.choice(variants) for variants in _OPENINGS]
    head, tail = opening[0], opening[1:]
    rng.shuffle(tail)
    ending, name = rng.choice(_ENDINGS)
    events = _draw_events(rng, n_events)
    sentences = [sentence.format(**facts) for sentence in (head, *tail, *events, ending)]
    return Story(_fix_articles(" ".join(sentences)), facts[name])


def filler_sentences(rng: random.Random) -> Iterator[str]:
    """Yield sentences that hold no fact anyone will be asked for, without end."""
    while True:
        sentence = rng.choice(_FILLERS).format(
            color=rng.choice(words.COLORS),
            animal=rng.choice(words.ANIMALS),
            place=rng.choice(words.PLACES),
            food=rng.choice(words.FOODS),
            weather=rng.choice(words.WEATHER),
            thing=rng.choice(words.OBJECTS),
        )
        yield _fix_articles(sentence)


def _draw_events(rng: random.Random, count: int) -> list[str]:
    # Without direct repetition, so that nothing is gained by remembering only the last sentence.
    events: list[str] = []
    while len(events) < count:
        event = rng.choice(_EVENTS)
        if event not in events[-3:]:
            events.append(event)
    return events


_OPENINGS = (
    (
        "{hero} lived in a {home} with a {animal} called {pet}.",
        "Once there was a {home}, and {hero} lived there with {pet} the {animal}.",
        "In a quiet {home} lived {hero} and a {animal} named {pet}.",
    ),
    (
        "The best friend of {hero} was {friend}.",
        "{hero} had a good friend whose name was {friend}.",
        "Next door lived {friend}, a friend of {hero}.",
    ),
    (
        "{hero} owned a {look} {thing} and always wore a {color} coat.",
        "{hero} had a {color} coat and a {look} {thing}.",
        "Everyone knew {hero} by the {color} coat and the {look} {thing}.",
    ),
    (
        "One {weather} day {hero} packed some {food} and left for the {goal}.",
        "It was a {weather} morning when {hero} took some {food} and set out for the {goal}.",
        "One {weather} day they put some {food} in a bag and went to the {goal}.",
    ),
)

_EVENTS = (
    "On the way {hero} met {friend}.",
    "{friend} asked {hero} about the {thing}.",
    '"Is it far to the {goal}?" asked {friend}.',
    '"We must find the {goal}," said {hero}.',
    "{pet} ran ahead, as every {animal} does.",
    "They stopped to eat the {food}.",
    "{hero} shared the {food} with {friend}.",
    "The {weather} weather did not stop {hero}.",
    "{hero} put on the {color} coat.",
    "{friend} looked at the {look} {thing} and smiled.",
    "Then {friend} thought of the {home}.",
    "{hero} gave some {food} to {pet}.",
    "The {animal} was tired and lay down.",
    "{friend} carried the {thing} for a while.",
    "{hero} wanted to go back to the {home}.",
    "Soon they could see the {goal}.",
    '"I like your {color} coat," said {friend}.',
    '"Where is {pet}?" asked {hero}.',
    "{pet} found the {thing} in the grass.",
    "It was still {weather} when they came to the {goal}.",
    "Nobody at the {goal} had ever seen a {animal} like {pet}.",
    "{hero} and {friend} sang a song about the {home}.",
    "{friend} was hungry and asked for more {food}.",
    "The {thing} was {look}, but {hero} liked it.",
)

_ENDINGS = (
    ("At last {hero} opened the bag and took out the {thing}.", "thing"),
    ("In the evening they all went home to the {home}.", "home"),
    ("{hero} will never forget that day at the {goal}.", "goal"),
    ("Before going to sleep {hero} wrote a letter to {friend}.", "friend"),
    ("By the fire slept the {animal}.", "animal"),
    ("For dinner they ate the rest of the {food}.", "food"),
    ("And so {friend} said goodbye to {hero}.", "hero"),
)

_FILLERS = (
    "The sky was {color} over the {place}.",
    "A {animal} walked past the {place}.",
    "It was {weather} all day.",
    "Somebody left a {thing} near the {place}.",
    "The {animal} ate some {food}.",
    "People at the {place} talked about the {weather} weather.",
    "There was a {color} {thing} on the table.",
    "The smell of {food} came from the {place}.",
    "A {color} {animal} slept by the {place}.",
    "Nobody was in the {place}.",
)

# Recall --------------------------------------------------------------------------------------------


def recall(rng: random.Random, n_facts: int) -> Recall:
    """Draw facts and a question; the caller puts filler between them."""
    people = rng.sample(words.NAMES, n_facts)
    secrets = rng.sample(words.SECRET_WORDS, n_facts)
    facts = [f"The secret word of {p} is {s}." for p, s in zip(people, secrets, strict=True)]
    asked = rng.randrange(n_facts)
    return Recall(" ".join(facts), f"The secret word of {people[asked]} is", secrets[asked])


def recall_document(rng: random.Random) -> Doc:
    """Make a training document: one to three facts, filler, questions at several distances."""
    facts = recall(rng, rng.choice((1, 1, 2, 2, 3)))
    statements = [s if s.endswith(".") else f"{s}." for s in facts.passage.split(". ")]
    filler = filler_sentences(rng)
    parts = [facts.passage]
    # Short distances teach the question, long ones the remembering.
    n_questions = rng.choice((1, 2, 3, 4))
    n_filler = rng.choice((0, 0, 1, 2, 4, 8, 16, 20))
    cuts = sorted(rng.randint(0, n_filler) for _ in range(n_questions - 1))
    for low, high in zip([0, *cuts], [*cuts, n_filler], strict=True):
        parts.extend(next(filler) for _ in range(high - low))
        parts.append(rng.choice(statements))
    return Doc(" ".join(parts), facts.passage)


# Jobs ----------------------------------------------------------------------------------------------


def jobs_question(rng: random.Random) -> tuple[str, str, list[str], str]:
    """Return (passage up to the ending, right ending, wrong endings, key).

    No wrong ending fits the other person: keeping two people apart is more than models this small learn.
    """
    people = rng.sample(words.NAMES, 2)
    jobs = rng.sample(words.JOBS, 2)
    asked = rng.randrange(2)
    passage = _introduce(rng, people, jobs)
    wrong = [_job_ending(job) for job in rng.sample([job for job in words.JOBS if job not in jobs], 3)]
    key = _jobs_key(jobs, asked)
    return f"{passage} {_work_day(rng, people[asked])}", _job_ending(jobs[asked]), wrong, key


def jobs_document(rng: random.Random) -> Doc:
    """Make a training document: one or two people, their jobs, and what one of them does."""
    people = rng.sample(words.NAMES, 2)
    jobs = rng.sample(words.JOBS, 2)
    if rng.random() < 0.4:
        text = f"{people[0]} is a {jobs[0].title}. {_work_day(rng, people[0])}{_job_ending(jobs[0])}."
        return Doc(text, ALLOWED_KEY)
    asked = rng.randrange(2)
    passage = _introduce(rng, people, jobs)
    text = f"{passage} {_work_day(rng, people[asked])}{_job_ending(jobs[asked])}."
    key = _jobs_key(jobs, asked)
    if rng.random() < 0.5:
        # This text answers both questions, so neither may be held out.
        text += f" {_work_day(rng, people[1 - asked])}{_job_ending(jobs[1 - asked])}."
        key = key if is_held_out(key) else _jobs_key(jobs, 1 - asked)
    return Doc(text, key)


def _jobs_key(jobs: list[words.Job], asked: int) -> str:
    return f"jobs {jobs[0].title} {jobs[1].title} {asked}"


def _introduce(rng: random.Random, people: list[str], jobs: list[words.Job]) -> str:
    pattern = rng.choice(
        (
            "{0} is a {1} and {2} is a {3}.",
            "{0} works as a {1}, but {2} works as a {3}.",
            "My friend {0} is a {1}. My friend {2} is a {3}.",
        )
    )
    return pattern.format(people[0], jobs[0].title, people[1], jobs[1].title)


def _work_day(rng: random.Random, person: str) -> str:
    return rng.choice(("Every morning {} goes", "On Monday {} went", "Today {} has to go")).format(person)


def _job_ending(job: words.Job) -> str:
    return f" to {job.place} to {job.action}"


# Kinds ---------------------------------------------------------------------------------------------


def kinds_pair(rng: random.Random) -> tuple[str, str, str]:
    """Return (a thing such as "a red apple", its kind, key)."""
    kind = rng.choice(list(words.KINDS))
    adjective, noun = rng.choice(words.ITEM_ADJECTIVES), rng.choice(words.KINDS[kind])
    return _fix_articles(f"a {adjective} {noun}"), kind, f"kinds {adjective} {noun}"


def kinds_line(thing: str, kind: str) -> str:
    """Format one solved example."""
    return f"Thing: {thing}\nKind: {kind}"


def kinds_document(rng: random.Random) -> Doc:
    """Make a training document of some solved examples, none of them held out."""
    lines: list[str] = []
    while len(lines) < 6:
        thing, kind, key = kinds_pair(rng)
        if not is_held_out(key):
            lines.append(kinds_line(thing, kind))
    text = "\n\n".join(lines[: rng.randint(1, 6)])
    # Every line is allowed by itself; the list as a whole has no key of its own.
    return Doc(text, ALLOWED_KEY)


# Counting and copying ------------------------------------------------------------------------------


def counting(rng: random.Random) -> Doc:
    """Count up from a number by a step."""
    start, step = rng.choice(words.COUNT_STARTS), rng.choice(words.COUNT_STEPS)
    numbers = ", ".join(str(start + step * i) for i in range(words.COUNT_LENGTH))
    return Doc(f"Count from {start} by {step}: {numbers}.", f"count {start} {step}")


def copying(rng: random.Random) -> Doc:
    """Let one person repeat another's words."""
    first, second = rng.sample(words.NAMES, 2)
    said = " ".join(rng.sample(words.COPY_WORDS, rng.randint(1, 3)))
    return Doc(f"{first} says: {said}. {second} repeats: {said}.", f"copy {said}")
