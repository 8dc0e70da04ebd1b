// What the pointer does: clicks add and remove, drags move, pan, paint or draw a box.

const STILL_PX = 4; // css px; a pointer that moves less clicks
const LEAST_REACH_PX = 7; // css px about a centre in which a click is on the mark

/**
 * page: what is shown and what can be done, as main.js makes it: viewer, scene, tool(), brush(),
 * isReadOnly(), act(...), redraw(), boxed(box).
 */
export function listen(canvas, page) {
  const { viewer, scene } = page;
  let drag = null;
  let space = false;

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const isOn = ({ y, x }) => {
    const [height, width] = viewer.micrograph.size_px;
    return y >= 0 && x >= 0 && y < height && x < width;
  };
  const reach = () => Math.max(0.4 * scene.diameter, LEAST_REACH_PX / viewer.scale);
  const hit = (place) => page.grid().nearest(place.y, place.x, reach());

  canvas.addEventListener('pointerdown', (event) => {
    if (!viewer.micrograph || drag) return;
    canvas.focus();
    canvas.setPointerCapture(event.pointerId);
    page.boxed(null);
    const point = at(event);
    const place = viewer.toMicrograph(point.x, point.y);
    drag = { point, last: point, kind: 'click', mark: null };
    if (event.button !== 0 || space) {
      drag.kind = 'pan';
    } else if (page.isReadOnly()) {
      drag.kind = 'look';
    } else if (page.tool() !== 'pick') {
      drag.kind = 'paint';
      const erase = (page.tool() === 'erase') !== event.altKey;
      scene.stroke = { path: [[place.y, place.x]], radius: page.brush(), erase };
    } else if (event.ctrlKey || event.metaKey || event.altKey) {
      drag.kind = 'box';
    } else {
      drag.mark = hit(place);
    }
    page.redraw();
  });

  canvas.addEventListener('pointermove', (event) => {
    if (!viewer.micrograph) return;
    const point = at(event);
    const place = viewer.toMicrograph(point.x, point.y);
    scene.pointer = point;
    if (!drag) {
      scene.hovered = page.tool() === 'pick' ? hit(place) : null;
      page.redraw();
      return;
    }
    const isMoving = Math.hypot(point.x - drag.point.x, point.y - drag.point.y) > STILL_PX;
    if (drag.kind === 'click' && isMoving) drag.kind = drag.mark ? 'move' : 'pan';
    if (drag.kind === 'look' && isMoving) drag.kind = 'pan';
    if (drag.kind === 'pan') {
      canvas.classList.add('panning');
      viewer.pan(point.x - drag.last.x, point.y - drag.last.y);
    } else if (drag.kind === 'move') {
      if (isOn(place)) scene.dragged = { id: drag.mark, to: place };
    } else if (drag.kind === 'paint') {
      const { path, radius } = scene.stroke;
      const [y, x] = path[path.length - 1];
      if (Math.hypot(place.y - y, place.x - x) > radius / 5) path.push([place.y, place.x]);
    } else if (drag.kind === 'box') {
      scene.box = { x0: drag.point.x, y0: drag.point.y, x1: point.x, y1: point.y };
    }
    drag.last = point;
    page.redraw();
  });

  canvas.addEventListener('pointerup', (event) => {
    if (!drag) return;
    const point = at(event);
    const place = viewer.toMicrograph(point.x, point.y);
    const { kind, mark } = drag;
    if (kind === 'click' && isOn(place)) click(place, mark, event.shiftKey);
    if (kind === 'move' && scene.dragged) page.act('move', { mark, ...scene.dragged.to });
    if (kind === 'paint') page.act('junk', scene.stroke);
    if (kind === 'box' && scene.box) page.boxed(scene.box);
    stop();
    scene.hovered = page.tool() === 'pick' ? hit(place) : null;
  });
  canvas.addEventListener('pointercancel', stop);
  canvas.addEventListener('pointerleave', () => {
    scene.pointer = null;
    scene.hovered = null;
    page.redraw();
  });

  function click({ y, x }, mark, isNegative) {
    if (mark !== null) {
      const was = scene.labels.marks.get(mark);
      page.act('remove', { mark });
      if (isNegative && was.particle) page.act('add_negative', { y: was.y, x: was.x });
      return;
    }
    const proposal = page.proposalAt(y, x, reach());
    const place = proposal ?? { y, x };
    if (proposal) page.act(isNegative ? 'reject' : 'accept', { centres: [[place.y, place.x]] });
    else page.act(isNegative ? 'add_negative' : 'add', { y, x });
  }

  function stop() {
    drag = null;
    scene.dragged = null;
    scene.stroke = null;
    scene.box = null;
    canvas.classList.remove('panning');
    page.redraw();
  }

  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    const { x, y } = at(event);
    const lines = event.deltaMode === 1 ? 18 : 1;
    const steps = Math.max(-150, Math.min(150, event.deltaY * lines));
    viewer.zoom(Math.exp(-steps * 0.0025), x, y);
  }, { passive: false });
  canvas.addEventListener('contextmenu', (event) => event.preventDefault());
  window.addEventListener('keydown', (event) => {
    if (event.code === 'Space' && event.target === canvas) {
      space = true;
      event.preventDefault();
    }
    if (event.key === 'Escape' && drag) stop();
  });
  window.addEventListener('keyup', (event) => {
    if (event.code === 'Space') space = false;
  });
}
