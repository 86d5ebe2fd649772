"""Full captions, for tests of the enhancer."""

FINE = [
    "a woman in a red coat, soft morning light, rough stone wall in the background, cinematic photo",
    'a shop sign with the word "OPEN" on the left, neon glow, dark street in the background',
    "three green stars on a white card",
    "a bowl of fruit on a wooden table, warm light, still life painting",
    'a poster that says "SALE" above and "TODAY ONLY" below, minimal style',
    "two blue circles on a yellow background",
]
