"""The picture of bench/pipeline's rows: a panel for each rate, a group of bars for each delay, the limit as a line over each group."""
from html import escape

INK, GRID = "#333", "#ddd"
COLORS = ["#1f6f8b", "#7fb069", "#d1495b", "#8d6a9f", "#b8b8b8", "#c9a227"]
WIDTH, PANEL, LEFT, TOP = 760, 240, 56, 64


def ticks(top):
    step = next(s for k in range(6) for s in (10 ** k, 2 * 10 ** k, 5 * 10 ** k) if top / s <= 6)
    return [i * step for i in range(int(top / step) + 1)]


def text(x, y, s, size=12, anchor="start", weight="normal"):
    return '<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s" font-weight="%s" fill="%s">%s</text>' % (x, y, size, anchor, weight, INK, escape(s))


def panel(rows, rate, engines, y0, top):
    rows = [r for r in rows if r["rate_mbit"] == rate]
    delays = sorted({r["delay_ms"] for r in rows})
    out, plot, base = [], WIDTH - LEFT - 16, y0 + PANEL - 40
    y = lambda v: base - (PANEL - 76) * v / top
    out.append(text(LEFT, y0 + 16, "links of %g Mbit/s" % rate, 13, weight="bold"))
    for t in ticks(top):
        out.append('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="%s"/>' % (LEFT, WIDTH - 16, y(t), y(t), GRID))
        out.append(text(LEFT - 6, y(t) + 4, "%g" % t, 11, "end"))
    for i, d in enumerate(delays):
        here = {r["engine"]: r for r in rows if r["delay_ms"] == d}
        group = plot / len(delays)
        x, w = LEFT + i * group + 0.1 * group, 0.8 * group / len(engines)
        for k, e in enumerate(engines):
            if e not in here: continue
            v = here[e]["tok_sec"]
            out.append('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s: %.1f tokens/s</title></rect>'
                       % (x + k * w, y(v), w - 2, base - y(v), COLORS[k % len(COLORS)], escape(e), v))
            out.append(text(x + k * w + (w - 2) / 2, y(v) - 4, "%.0f" % v if v >= 20 else "%.1f" % v, 10, "middle"))
        limits = sorted(r["limit_tok_sec"] for r in here.values())
        limit = limits[len(limits) // 2]
        out.append('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s" stroke-width="2" stroke-dasharray="5 3"/>' % (x - 4, x + 0.8 * group + 4, y(limit), y(limit), INK))
        out.append(text(LEFT + (i + 0.5) * group, base + 18, "%g ms" % d, 12, "middle"))
    return "\n".join(out)


def draw(out):
    rows = out["rows"]
    engines = list(dict.fromkeys(r["engine"] for r in rows))
    rates = sorted({r["rate_mbit"] for r in rows}, reverse=True)
    top = 1.12 * max(max(r["tok_sec"], r["limit_tok_sec"]) for r in rows)
    height = TOP + PANEL * len(rates) + 8
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif">' % (WIDTH, height), '<rect width="100%" height="100%" fill="#fff"/>',
             text(LEFT, 22, "Tokens a second of one stream over three nodes, by one-way delay of every link", 14, weight="bold")]
    x = LEFT
    for k, e in enumerate(engines):
        parts.append('<rect x="%d" y="36" width="12" height="12" fill="%s"/>' % (x, COLORS[k % len(COLORS)]))
        parts.append(text(x + 17, 46, e, 12))
        x += 40 + 7 * len(e)
    parts.append('<line x1="%d" x2="%d" y1="42" y2="42" stroke="%s" stroke-width="2" stroke-dasharray="5 3"/>' % (x, x + 24, INK))
    parts.append(text(x + 30, 46, "limit (same file)", 12))
    for i, rate in enumerate(rates): parts.append(panel(rows, rate, engines, TOP + PANEL * i, top))
    return "\n".join(parts + ["</svg>"]) + "\n"
