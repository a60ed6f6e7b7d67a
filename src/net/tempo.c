#include "net/tempo.h"

enum { WORKS_MIN = 3 /* between two looks, to be judged */, LOOKS = 3 };
#define SLOW 3.0 /* times slower than the others have become: less is not worth a move */

static int size_of(uint32_t n_tokens)
{
    return n_tokens == 1 ? 0 : n_tokens == 2 ? 1 : n_tokens <= 4 ? 2 : 3;
}

void dil__tempo_note(dil__tempo *p, uint32_t n_tokens, uint64_t ns)
{
    if (n_tokens == 0 || n_tokens > 8) return;
    p->n[size_of(n_tokens)]++;
    p->ns[size_of(n_tokens)] += ns;
}

void dil__tempo_restart(dil__tempo_watch *w)
{
    w->last = (dil__tempo){0};
    w->factor = 0;
    w->n_slow = 0;
}

bool dil__tempo_look(dil__tempo_watch *w, const dil__tempo *now, double bytes, double measured)
{
    int most = 0;
    uint32_t n[DIL__TEMPO_SIZES];
    for (int i = 0; i < DIL__TEMPO_SIZES; i++) {
        n[i] = now->n[i] - w->last.n[i];
        if (now->n[i] < w->last.n[i] || now->ns[i] < w->last.ns[i]) { /* another session */
            w->last = *now;
            return false;
        }
        if (n[i] > n[most]) most = i;
    }
    if (n[most] < WORKS_MIN) return false;
    double ns = (double)(now->ns[most] - w->last.ns[most]) / n[most];
    w->last = *now;
    if (!(ns > 0) || !(bytes > 0)) return false;
    double speed = bytes / (ns * 1e-9);
    if (most == 0 && measured > w->best[0]) w->best[0] = measured;
    if (speed > w->best[most]) w->best[most] = speed;
    w->factor = w->best[most] / speed;
    return true;
}

bool dil__tempo_is_slow(dil__tempo_watch *w, double least, double *slower)
{
    *slower = least > 0 ? w->factor / least : w->factor;
    if (!(w->factor > 0) || *slower < SLOW) {
        w->n_slow = 0;
        return false;
    }
    return ++w->n_slow == LOOKS;
}
