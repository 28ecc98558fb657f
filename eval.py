"""placeholder"""
def _chunk(tag): return tag[0], (tag[1:].rsplit("-", 1)[-1] or "_")
def tagging_scores(gold,pred):
    c=n=0
    for g,p in zip(gold,pred):
        n+=len(g); c+=sum(a==b for a,b in zip(g,p))
    return {"accuracy":c/n,"f1":0.0,"count":n}
