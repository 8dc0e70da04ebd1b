// Which mark is near a place: a grid whose cells are as wide as the search reaches.

export class Grid {
  /** places: iterable of [key, {y, x}]; reach: the farthest that `nearest` looks, in their unit. */
  constructor(places, reach) {
    this.reach = reach;
    this.cells = new Map();
    for (const [key, place] of places) {
      const cell = this.cellOf(place.y, place.x);
      if (!this.cells.has(cell)) this.cells.set(cell, []);
      this.cells.get(cell).push([key, place]);
    }
  }

  cellOf(y, x) {
    return Math.floor(y / this.reach) * 1e5 + Math.floor(x / this.reach);
  }

  /** The key of the nearest place within `within` (at most the reach) of (y, x), or null. */
  nearest(y, x, within = this.reach) {
    let best = null;
    let least = within * within;
    for (let dy = -1; dy <= 1; dy += 1) {
      for (let dx = -1; dx <= 1; dx += 1) {
        const cell = this.cells.get(this.cellOf(y + dy * this.reach, x + dx * this.reach)) ?? [];
        for (const [key, place] of cell) {
          const squared = (place.y - y) ** 2 + (place.x - x) ** 2;
          if (squared <= least) [best, least] = [key, squared];
        }
      }
    }
    return best;
  }
}
