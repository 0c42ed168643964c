"""The drawings of report.html, as inline SVG: the flow of §3.2, levels before and after, lengths of chains."""

import html
import math

from agents.roles import LEVELS

ROW, BOX, TOP = 124, 44, 30  # heights in the flow: of a lane, of a box, above the first lane
X = {"input": 10, "critic": 160, "rethinker": 372, "verifier": 550, "again": 716, "kept": 890}
WIDTH = {"input": 86, "critic": 92, "rethinker": 104, "verifier": 92, "again": 92, "kept": 100}
UNSEEN = {"unanswered": "no reply", "guarded": "stopped by a guard", "unchanged": "unchanged"}  # by the Verifier


def flow(report):
    """Fig. 2 with counts on every arrow. One lane for chains rated medium, one for each try of a rewrite; what fails a
    try goes down to the next one, and from the last to what was not kept."""
    problems, levels, paths = report["problems"], report["levels_before"], report["flow"]
    medium, tries = paths["medium"], paths["tries"]
    parts, lanes = [], 1 + len(tries)
    bottom = TOP + lanes * ROW
    middle = [TOP + lane * ROW + BOX / 2 for lane in range(lanes)]
    height = (lanes - 1) * ROW + BOX

    parts += [_box("input", TOP, BOX, f"{problems['input']}", "problems"), _box("critic", TOP, height, "Critic")]
    parts.append(_arrow("input", "critic", middle[0], problems["input"], ""))
    kept = [_box("kept", TOP, height, f"{problems['kept']}", "kept", tone="kept")]
    kept += [
        _text(X["kept"] + 50, TOP + 78 + 18 * i, f"{n} {origin}", "soft", "middle")
        for i, (origin, n) in enumerate(report["kept_by_origin"].items() if lanes > 1 else ())
    ]
    if medium:
        parts.append(_box("verifier", TOP, BOX, "Verifier"))
        parts.append(_arrow("critic", "verifier", middle[0], levels["medium"], "medium", "medium"))
        parts.append(_arrow("verifier", "kept", middle[0], medium.get("kept", 0), "as they were", "kept"))
        parts += _drop("verifier", middle[0], medium.get("again", 0), medium.get("lost", 0), "not verified", lanes > 1)
    for number, (name, count) in enumerate(tries.items(), 1):
        y, last = middle[number], number == len(tries)
        parts += [
            _box("rethinker", y - BOX / 2, BOX, "Rethinker", f"try {name}: {count['entered']}"),
            _box("verifier", y - BOX / 2, BOX, "Verifier"),
            _box("again", y - BOX / 2, BOX, "Critic"),
            _arrow("rethinker", "verifier", y, count["entered"] - sum(count.get(name, 0) for name in UNSEEN), ""),
            _arrow("verifier", "again", y, count.get("verified", 0), "yes"),
            _arrow("again", "kept", y, count.get("kept", 0), "medium", "kept"),
        ]
        if number == 1:
            for level, shift in (("easy", -11), ("hard", 11)):
                parts.append(_arrow("critic", "rethinker", y + shift, levels[level], level, level))
        fails = [
            *(("rethinker", count.get(name, 0), words) for name, words in UNSEEN.items()),
            ("verifier", count.get("not_verified", 0), "not verified"),
            ("again", count.get("rated_easy", 0), "rated easy"), ("again", count.get("rated_hard", 0), "rated hard"),
            ("again", count.get("verified", 0) - sum(count.get(f"rated_{level}", 0) for level in LEVELS), "no rating"),
        ]  # fmt: skip
        parts += _fails(y, fails, count.get("again", 0), count.get("lost", 0), last)
    rejected, y = problems["rejected"], bottom + 4
    parts.append(_box("rethinker", y, BOX, f"{rejected}", "not kept", tone="lost"))
    reasons = sorted(report["rejected_by_reason"].items(), key=lambda item: -item[1])
    shown = [f"{n} {reason.replace('_', ' ')}" for reason, n in reasons[:6]] + ["…"] * (len(reasons) > 6)
    for line, some in enumerate((shown[:3], shown[3:])):
        parts.append(_text(X["verifier"] - 56, y + 19 + 17 * line, ", ".join(some), "soft"))
    if paths["rating"].get("lost"):
        parts.append(
            _line(X["critic"] + 46, TOP + height, y + BOX / 2, X["rethinker"], "lost", paths["rating"]["lost"])
        )
        parts.append(_text(X["critic"] + 56, y + BOX / 2 - 7, f"{paths['rating']['lost']} at once", "lost toned"))
    return (
        f'<svg id="flow" viewBox="0 0 1000 {y + BOX + 12:g}" role="img" aria-label="flow of the problems">'
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path class="head" d="M0 0 8 4 0 8z"/></marker></defs>'
        f"{''.join(parts + kept)}</svg>"
    )


def _fails(y, fails, again, lost, last):
    """The exits of one try: what each agent turns down, and how much of it is tried again."""
    low, parts, seen = y + ROW - BOX / 2 - 26, [], {}
    for agent, count, label in fails:
        if count:
            line = seen[agent] = seen.get(agent, -1) + 1
            x = X[agent] + WIDTH[agent] / 2
            parts.append(_text(x + 7, y + BOX / 2 + 16 + 15 * line, f"{count} {label}", "soft"))
            if not line:
                parts.append(f'<path class="arrow" d="M{x} {y + BOX / 2:g}V{low:g}"/>')
    if seen:
        right, target = max(X[a] + WIDTH[a] / 2 for a in seen), X["rethinker"] + 16
        end = y + ROW - BOX / 2 - (0 if not last else -4)
        words = ", ".join(filter(None, [f"{again} again" if again else "", f"{lost} given up" if lost else ""]))
        parts.append(f'<path class="arrow" marker-end="url(#tip)" d="M{right} {low:g}H{target}V{end:g}"/>')
        parts.append(_text(target - 7, low + 4, words, "soft", "end"))
    return parts


def _drop(agent, y, again, lost, label, more):
    """What the Verifier turns down of the chains rated medium."""
    if not again + lost:
        return []
    x = X[agent] + WIDTH[agent] / 2
    words = f"{again + lost} {label}: " + ", ".join(
        filter(None, [f"{again} rewritten" if again else "", f"{lost} given up" if lost else ""])
    )
    return [
        f'<path class="arrow" marker-end="url(#tip)" d="M{x} {y + BOX / 2:g}v{30 if more else 60}"/>',
        _text(x + 9, y + BOX / 2 + 20, words, "soft"),
    ]


def _line(x, top, y, to, tone, count):
    return f'<path class="arrow toned {tone}" marker-end="url(#tip)" {_thick(count)} d="M{x} {top:g}V{y:g}H{to}"/>'


def _box(name, y, height, title, under="", tone=""):
    x, width = X[name], WIDTH[name]
    tone = f" toned {tone}" if tone else ""
    first = y + min(height, BOX) / 2 + (-3 if under else 5)
    under = _text(x + width / 2, first + 16, under, "soft", "middle") if under else ""
    rect = f'<rect class="box{tone}" x="{x}" y="{y:g}" width="{width}" height="{height:g}" rx="8"/>'
    return f'{rect}<g font-weight="600">{_text(x + width / 2, first, title, "", "middle")}</g>{under}'


def _arrow(start, end, y, count, label, tone=""):
    """A horizontal arrow from box to box with its count above it; faint where nothing went."""
    x0, x1 = X[start] + WIDTH[start], X[end] - 2
    tone, faint = (f" toned {tone}" if tone else ""), "" if count else ' opacity=".35"'
    path = f'<path class="arrow{tone}" marker-end="url(#tip)" {_thick(count)} d="M{x0} {y:g}H{x1}"/>'
    return f"<g{faint}>{path}{_text((x0 + x1) / 2, y - 6, f'{count} {label}'.strip(), '', 'middle')}</g>"


def _thick(count):
    return f'stroke-width="{min(5.0, 1 + math.log10(count + 1)):.1f}"'


def _text(x, y, text, style="", anchor="start"):
    return f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">{html.escape(str(text))}</text>'


def levels(before, after):
    """Two bars, one above the other: how all chains were rated first, and how what became of them was rated last."""
    parts = []
    for row, (name, counts) in enumerate((("first rating", before), ("last rating", after))):
        total, x = max(1, sum(counts.values())), 90.0
        parts.append(_text(0, 36 + 64 * row, name, "soft"))
        for level in (*LEVELS, "unrated"):
            width = 400 * counts[level] / total
            if counts[level]:
                parts.append(
                    f'<g class="{level}"><rect class="toned" x="{x:.1f}" y="{18 + 64 * row}" width="{width:.1f}" '
                    f'height="28" rx="3"><title>{counts[level]} {level}</title></rect>'
                )
                if width > 24:
                    share = f"{counts[level]} ({counts[level] / total:.0%})" if width > 74 else str(counts[level])
                    parts.append(_text(x + 2, 61 + 64 * row, share))
                parts.append("</g>")
            x += width
    for place, level in enumerate((*LEVELS, "unrated")):
        parts.append(f'<rect class="{level} toned" x="{90 + 100 * place}" y="150" width="11" height="11" rx="2"/>')
        parts.append(_text(106 + 100 * place, 160, level, "soft"))
    return f'<svg viewBox="0 0 500 168" role="img" aria-label="levels before and after">{"".join(parts)}</svg>'


def lengths(groups):
    """Small histograms over one logarithmic axis. groups: {title: (tone, [characters])}."""
    everything = [max(1, n) for _, values in groups.values() for n in values]
    if not everything:
        return '<p class="soft">No chain was kept or rated.</p>'
    low, high = math.log2(min(everything)), math.log2(max(everything) + 1) + 1e-9
    bins, parts, row = 40, [], 46
    for place, (title, (tone, values)) in enumerate(groups.items()):
        counts = [0] * bins
        for n in values:
            counts[min(bins - 1, int(bins * (math.log2(max(1, n)) - low) / max(high - low, 1e-9)))] += 1
        base, top = row * (place + 1), max(counts) or 1
        bars = "".join(
            f'<rect x="{140 + 9 * i}" y="{base - 34 * n / top:.1f}" width="8" height="{34 * n / top:.1f}"/>'
            for i, n in enumerate(counts)
            if n
        )
        median = f"median {sorted(values)[len(values) // 2]:,}" if values else "none"
        parts.append(f'<g class="{tone} toned">{bars}</g><path class="arrow" opacity=".4" d="M140 {base}H500"/>')
        parts += [_text(0, base - 18, title), _text(0, base - 3, f"{len(values)}, {median}", "soft")]
    bottom = row * len(groups)
    for power in range(math.ceil(low), math.ceil(high) + 1, max(1, round((high - low) / 6))):
        x = 140 + 360 * (power - low) / max(high - low, 1e-9)
        if x <= 500:
            parts.append(_text(x, bottom + 18, f"{2**power:,}", "soft", "middle"))
    return (
        f'<svg viewBox="0 0 520 {bottom + 26}" role="img" aria-label="lengths of chains in characters">'
        f"{''.join(parts)}</svg>"
    )
