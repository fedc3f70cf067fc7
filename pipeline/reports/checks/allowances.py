"""What each motion preset promises, so that no check takes it for a defect. Pure data.

The names are those of the shipped catalogue; a preset that is not in the table gets no allowance. Each line says what
the preset does on screen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a preset may do.

    Args:
        is_static: the camera may rest for the whole clip; only a stretch that differs from the rest is a freeze.
        pauses: it moves in bursts with rests between them; a rest counts as a freeze from 3.2 s on.
        flashes: factor on the limit of `flash`: short changes of the whole frame's light are part of it.
        flicker: factor on the limits of `flicker`.
        is_transition: a change of scene is part of it; a hard cut is a warning only.
        jumps: unrelated pictures may follow each other quickly.
        blurs: factor on the limits of `soft`, below 1 where it takes focus or detail away.
        recolors: factor on the limit of `color_drift` where it changes the colours.
    """

    is_static: bool = False
    pauses: bool = False
    flashes: float = 1.0
    flicker: float = 1.0
    is_transition: bool = False
    jumps: bool = False
    blurs: float = 1.0
    recolors: float = 1.0


NONE = Allowance()

_STATIC = Allowance(is_static=True)
_PAUSES = Allowance(pauses=True)
_BLAST = Allowance(flashes=3.0, recolors=6.0, blurs=0.7)
_RECOLORS = Allowance(recolors=1.6)
_BLURS = Allowance(blurs=0.5)
_TRANSITION = Allowance(is_transition=True)

ALLOWANCES: Mapping[str, Allowance] = {
    "Agent Reveal": _TRANSITION,  # the agent appears by a change of clothes or scene
    "Angel Wings": _RECOLORS,  # wings of light
    "Building Explosion": _BLAST,  # fireball: light jumps up, colour turns orange
    "Bullet Time": _PAUSES,  # time stops while the camera circles
    "Car Explosion": _BLAST,
    "Clone Explosion": _BLAST,
    "Crash Zoom In": _PAUSES,  # rests, shoots in, rests
    "Crash Zoom Out": _PAUSES,
    "Datamosh": Allowance(
        is_transition=True, jumps=True, blurs=0.4, flicker=4.0, flashes=4.0
    ),  # broken pictures are the effect
    "Disintegration": _RECOLORS,  # the subject turns to ash
    "Earth Zoom Out": Allowance(is_transition=True, recolors=1.3),  # from the street to the globe
    "Eyes In": Allowance(recolors=1.3, is_transition=True),  # ends inside the iris
    "Fire Breathe": _RECOLORS,
    "Flood": _RECOLORS,
    "Focus Change": Allowance(is_static=True, blurs=0.0),  # the pull of the focus is the motion
    "Freezing": Allowance(is_static=True, recolors=1.3),  # everything turns to ice and stops
    "Garden Bloom": _RECOLORS,
    "Glam": Allowance(flashes=4.0),  # glints
    "Glowshift": Allowance(recolors=6.0),  # light that grows and changes
    "Head Explosion": _BLAST,
    "Hyperlapse": Allowance(flicker=2.7, recolors=2.7),  # hours in seconds: light jumps from frame to frame
    "Innerlight": Allowance(recolors=6.0),  # the subject begins to glow
    "Lens Flare": Allowance(flashes=4.0),
    "Low Shutter": _BLURS,  # long exposure smears
    "Morphskin": _RECOLORS,
    "Mouth In": Allowance(recolors=1.3, is_transition=True),  # ends in the dark of the mouth
    "Paint Splash": _RECOLORS,
    "Paparazzi": Allowance(flashes=4.0, flicker=100.0),  # flashguns: every other frame may be lit by another one
    "Powder Explosion": Allowance(recolors=3.0),  # clouds of colour, no light
    "Roll Transition": Allowance(is_transition=True, pauses=True),  # turns over into another scene
    "Sand Storm": Allowance(blurs=0.4, recolors=1.3),  # dust hides the picture
    "Set on Fire": _RECOLORS,
    "Skin Surge": _RECOLORS,
    "Soul Jump": Allowance(recolors=2.0),  # a glow that grows
    "Static": _STATIC,
    "Super 8MM": Allowance(flicker=7.0, flashes=4.0, recolors=1.6),  # an old projector's light
    "Through Object In": _TRANSITION,
    "Through Object Out": _TRANSITION,
    "Thunder God": Allowance(flashes=4.0, flicker=13.0, recolors=5.0),  # lightning
    "Timelapse Human": Allowance(is_static=True, flicker=2.0, recolors=1.6),  # from a tripod
    "Timelapse Landscape": Allowance(is_static=True, flicker=2.0, recolors=2.0),  # from a tripod; day turns to night
    "Turning Metal": _RECOLORS,
    "VHS": Allowance(is_static=True, flicker=4.0),  # tape: a camera at rest, bands and noise
    "Whip Pan": _PAUSES,  # rests, whips, rests
}
"""The presets that need one. All others move the camera or the subject and promise nothing that a check reports."""

_BY_NAME = {name.casefold(): allowance for name, allowance in ALLOWANCES.items()}


def allowance_of(preset: str | None) -> Allowance:
    """The allowance of a preset by its name in any case; NONE for one that is not known."""
    return NONE if preset is None else _BY_NAME.get(preset.casefold(), NONE)
