/* plan/path_links.c - links by the node that they leave, and by the one that they enter. */
#include "plan/path_int.h"

#include <stdlib.h>

double dil__px_link_sec(const px_links *k, int from, int to) {
    int lo = k->first[from], hi = k->first[from + 1];
    while (lo < hi) {
        const int mid = lo + (hi - lo) / 2;
        if (k->to[mid] == to) return k->sec[mid];
        if (k->to[mid] < to) lo = mid + 1;
        else hi = mid;
    }
    return INFINITY;
}

bool dil__px_links_back(const px_links *k, int n_nodes, px_links *back) {
    const int n = k->first[n_nodes];
    *back = (px_links){.first = dil__px_alloc((size_t)n_nodes + 2, sizeof(int)), .to = dil__px_alloc((size_t)n, sizeof(int)), .sec = dil__px_alloc((size_t)n, sizeof(double))};
    if (!back->first || !back->to || !back->sec) {
        dil__px_links_fini(back);
        return false;
    }
    for (int e = 0; e < n; e++) back->first[k->to[e] + 2]++;
    for (int s = 0; s < n_nodes; s++) back->first[s + 2] += back->first[s + 1];
    for (int s = 0; s < n_nodes; s++)
        for (int e = k->first[s]; e < k->first[s + 1]; e++) {
            const int at = back->first[k->to[e] + 1]++;
            back->to[at] = s;
            back->sec[at] = k->sec[e];
        }
    return true;
}

void dil__px_links_fini(px_links *k) {
    free(k->first);
    free(k->to);
    free(k->sec);
    *k = (px_links){0};
}
