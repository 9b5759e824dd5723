"""Damaged files, for the tests of what reads them."""

from hypothesis import strategies as st

DAMAGE = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True)),
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.integers(0, 7)),
    st.tuples(st.just("append"), st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("replace"), st.binary(max_size=200)),
)


def damaged(content, damage):
    kind, *how = damage
    if kind == "replace":
        return how[0]
    if kind == "append":
        return content + how[0]
    position = int(how[0] * len(content))
    if kind == "cut":
        return content[:position]
    changed = bytearray(content)
    changed[position] ^= 1 << how[1]
    return bytes(changed)
